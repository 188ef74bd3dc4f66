"""Text to segments: normalise, tokenise, and cut into stretches that the model speaks in one go (spec 4)."""

from __future__ import annotations

import logging

from indextts.errors import TextError
from indextts.text.segmenter import split_segments
from indextts.text.tokenizer import TextTokenizer
from indextts.types import Segment

logger = logging.getLogger(__name__)


class TextStage:
    """Owns the tokeniser; everything else here is a pure function of the text."""

    def __init__(self, tokenizer: TextTokenizer, max_text_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_text_tokens = max_text_tokens

    def __call__(self, text: str, max_tokens: int = 120, quick_streaming_tokens: int = 0) -> list[Segment]:
        """Cut ``text`` into segments of at most ``max_tokens`` tokens.

        Raises:
            TextError: nothing speakable in the text, or ``max_tokens`` beyond the model's table.
        """
        if not 2 <= max_tokens <= self.max_text_tokens:
            raise TextError(f"a segment can have 2 to {self.max_text_tokens} text tokens, not {max_tokens}")
        tokens = self.tokenizer.tokenize(text)
        if unknown := self.tokenizer.unknown_tokens(tokens):
            logger.warning("the voice model has no sound for: %s", " ".join(unknown))
        pieces = split_segments(tokens, max_tokens, quick_streaming_tokens)
        if not any(piece for piece in pieces):
            raise TextError(f"there is nothing to speak in the text {text[:80]!r}")
        return [
            Segment(index, tuple(piece), tuple(self.tokenizer.ids(piece)))
            for index, piece in enumerate(pieces)
        ]
