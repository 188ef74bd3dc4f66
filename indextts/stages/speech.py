"""Text tokens to speech codes: the language model, run twice (spec 7).

The first run draws codes one by one behind the prefix (voice latents with the emotion added, speed, text). The second
reads the finished codes at once and yields the hidden state before each of them, the latent that colours the mel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from indextts.config import SamplingParams
from indextts.decoding.backend import DecodeBackend
from indextts.decoding.search import generate
from indextts.errors import SynthesisError
from indextts.models.gpt import UnifiedVoice
from indextts.types import Conditioning, Segment, SpeechCodes, StopCallback


class SpeechStage:
    """(segments, conditioning) to ``SpeechCodes``."""

    def __init__(self, gpt: UnifiedVoice, backend: DecodeBackend) -> None:
        self.gpt = gpt
        self.backend = backend

    @torch.inference_mode()
    def __call__(
        self,
        segments: Sequence[Segment],
        conditioning: Conditioning,
        sampling: SamplingParams,
        generator: torch.Generator | None,
        should_stop: StopCallback | None = None,
    ) -> list[SpeechCodes]:
        """Speak ``segments`` as one batch.

        Raises:
            SynthesisError: the model stopped a segment before its first code.
            Cancelled: ``should_stop`` said so.
            UndefinedValues: scores of the model are not finite.
        """
        gpt, voice = self.gpt, conditioning.voice
        sampling = dataclasses.replace(sampling, max_mel_tokens=min(sampling.max_mel_tokens, self.backend.max_codes))
        device = voice.speaker_latents.device
        ids, id_lengths = padded([torch.tensor(s.token_ids, device=device) for s in segments])
        latents, emotion = (x.to(gpt.dtype) for x in (voice.speaker_latents, conditioning.emotion_vector))
        prefix, mask = gpt.prefix(latents, emotion, ids, id_lengths)
        drawn = generate(self.backend, prefix, mask, sampling, generator=generator, should_stop=should_stop)
        for segment, codes in zip(segments, drawn.codes, strict=True):
            if len(codes) == 0:
                raise SynthesisError(f"the model produced no speech for segment {segment.index + 1}: {segment.text!r}")
        codes, code_lengths = padded(drawn.codes)
        hidden = gpt.latents(latents, emotion, ids, codes, id_lengths, code_lengths)
        return [
            SpeechCodes(segment, row, state[: len(row)], hit_limit)
            for segment, row, state, hit_limit in zip(segments, drawn.codes, hidden, drawn.hit_limit, strict=True)
        ]


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of ids as one ``[B, max length]`` tensor, zeros on the right, and their lengths ``[B]``."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True), lengths
