"""Text tokens to speech codes: the language model, run twice (spec 7).

The first run draws codes one by one behind the prefix (voice latents with the emotion added, speed, text). The second
reads the finished codes at once and yields the hidden state before each of them, the latent that colours the mel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from indextts.config import SamplingParams
from indextts.decoding.backend import DecodeBackend
from indextts.decoding.forced import forced_logits
from indextts.decoding.search import DEVICE_STEPS_PER_LOOK, Decoding, generate
from indextts.errors import SynthesisError
from indextts.models.gpt import UnifiedVoice
from indextts.stages.alignment import TextFollower
from indextts.types import ChunkSchedule, Conditioning, Segment, SpeechCodes, StopCallback


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
        length_hints: Sequence[int] | None = None,
        aligned: bool = False,
    ) -> list[SpeechCodes]:
        """Speak ``segments`` as one batch.

        ``length_hints`` tells a model that has learnt to listen to it in how many codes to speak each. ``aligned``
        speech also tells where in its text it is, if the model knows.

        Raises:
            SynthesisError: the model stopped a segment before its first code.
            Cancelled: ``should_stop`` said so.
            UndefinedValues: scores of the model are not finite.
        """
        known = latents, emotion, ids, id_lengths = self._known(segments, conditioning)
        hints = None
        if length_hints is not None:
            hints = torch.tensor(length_hints, device=ids.device).clamp(max=self.gpt.max_codes)
        limited, prefix = self._limited(sampling), self.gpt.prefix(*known, hints)
        drawn = generate(self.backend, *prefix, limited, generator=generator, should_stop=should_stop)
        for segment, codes in zip(segments, drawn.codes, strict=True):
            check_spoken(segment, codes)
        codes, code_lengths = padded(drawn.codes)
        follower = TextFollower(id_lengths, code_lengths) if aligned else None
        hidden = self.gpt.latents(latents, emotion, ids, codes, id_lengths, code_lengths, hints, follower)
        alignments = [None] * len(segments) if follower is None else follower.alignments()
        return [
            SpeechCodes(segment, row, state[: len(row)], hit_limit, alignment=alignment)
            for segment, row, state, hit_limit, alignment in zip(
                segments, drawn.codes, hidden, drawn.hit_limit, alignments, strict=True
            )
        ]

    @torch.inference_mode()
    def growing(
        self,
        segment: Segment,
        conditioning: Conditioning,
        sampling: SamplingParams,
        chunks: ChunkSchedule,
        generator: torch.Generator | None,
        should_stop: StopCallback | None = None,
        aligned: bool = False,
    ) -> Iterator[SpeechCodes]:
        """Speak one segment, and yield its speech so far each time that there is enough for another chunk.

        What was yielded stays: with several beams, it is what all of them have in common. The last speech is
        ``complete``, and the same that a call gives. In between, others may use the model. Raises as a call does.
        """
        known = latents, emotion, ids, id_lengths = self._known([segment], conditioning)
        limited, prefix = self._limited(sampling), self.gpt.prefix(*known)
        decoding = Decoding(self.backend, *prefix, limited, generator=generator, should_stop=should_stop)

        def speech(codes: Tensor, reached_limit: bool, complete: bool) -> SpeechCodes:
            follower = TextFollower(id_lengths, id_lengths.new_tensor([len(codes)])) if aligned else None
            # Causal: rows do not change any more.
            hidden = self.gpt.latents(latents, emotion, ids, codes[None], watch=follower)
            (alignment,) = [None] if follower is None else follower.alignments()
            return SpeechCodes(segment, codes, hidden[0], reached_limit, complete, alignment=alignment)

        for wanted in chunks.code_counts():
            codes = decoding.settled(0)
            while len(codes) < wanted and not decoding.finished:
                decoding.run(wanted if decoding.steps < wanted else decoding.steps + DEVICE_STEPS_PER_LOOK)
                codes = decoding.settled(0)
            if decoding.finished:
                break
            so_far = speech(codes, reached_limit=False, complete=False)
            decoding.park()
            yield so_far
        drawn = decoding.result()
        check_spoken(segment, drawn.codes[0])
        yield speech(drawn.codes[0], drawn.hit_limit[0], complete=True)

    @torch.inference_mode()
    def told(
        self, segments: Sequence[Segment], conditioning: Conditioning, codes: Sequence[Tensor]
    ) -> tuple[list[SpeechCodes], list[Tensor]]:
        """Speak ``segments`` as one batch in codes ``[M]`` that are given, not drawn.

        Returns:
            The speech, and for each segment the logits ``[M + 1, V]`` that its codes and the stop code would have been
            drawn from.
        """
        known = latents, emotion, ids, id_lengths = self._known(segments, conditioning)
        rows, code_lengths = padded(codes)
        logits = forced_logits(self.backend, *self.gpt.prefix(*known), rows)
        hidden = self.gpt.latents(latents, emotion, ids, rows, id_lengths, code_lengths)
        speech = [
            SpeechCodes(segment, own, state[: len(own)], reached_limit=False)
            for segment, own, state in zip(segments, codes, hidden, strict=True)
        ]
        return speech, [row[: len(own) + 1] for row, own in zip(logits, codes, strict=True)]

    def _known(self, segments: Sequence[Segment], conditioning: Conditioning) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the language model is told: speaker latents, emotion vector, text ids and their lengths."""
        voice = conditioning.voice
        latents, emotion = (x.to(self.gpt.dtype) for x in (voice.speaker_latents, conditioning.emotion_vector))
        return latents, emotion, *padded([torch.tensor(s.token_ids, device=latents.device) for s in segments])

    def _limited(self, sampling: SamplingParams) -> SamplingParams:
        """With no more codes than there is room for."""
        return dataclasses.replace(sampling, max_mel_tokens=min(sampling.max_mel_tokens, self.backend.max_codes))


def check_spoken(segment: Segment, codes: Tensor) -> None:
    """Raise ``SynthesisError`` if a segment has no ``codes``."""
    if len(codes) == 0:
        raise SynthesisError(f"the model produced no speech for segment {segment.index + 1}: {segment.text!r}")


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of ids as one ``[B, max length]`` tensor, zeros on the right, and their lengths ``[B]``."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True), lengths
