"""The sound of a segment that is still being spoken, chunk by chunk (docs/streaming.md).

Neither the flow nor the vocoder is causal: a frame depends on what follows it. So the last frames of a chunk are
provisional. They show the frames before them what may follow, and are computed again with the next chunk. To this, the
speech so far is a longer prompt: the flow continues it as it continues the recording of the voice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from indextts.stages.s2mel import S2MelStage
from indextts.stages.vocoder import VocoderStage
from indextts.types import ChunkSchedule, SpeechCodes, Voice


class GrowingMel:
    """The mel of one segment, as far as there is speech.

    Attributes:
        mel: ``[1, n_mels, F]``, the provisional frames included.
        settled: So many frames of it do not change any more.
    """

    def __init__(self, stage: S2MelStage, voice: Voice, chunks: ChunkSchedule, generator: torch.Generator) -> None:
        self.stage, self.voice, self.chunks, self.generator = stage, voice, chunks, generator
        self.mel = voice.prompt_mel[..., :0]
        self.settled = 0

    @torch.inference_mode()
    def grow(self, speech: SpeechCodes, check: Callable[[], None] | None = None) -> None:
        """Take in the speech so far. ``check`` is called before every step of the solver, and raises to give up."""
        content, _ = self.stage.content([speech])
        begin, end = self.settled, content.shape[1]
        first = max(0, begin - self.chunks.context_frames)
        behind_context = replace(
            self.voice,
            prompt_mel=torch.cat((self.voice.prompt_mel, self.mel[..., first:begin]), dim=2),
            prompt_condition=torch.cat((self.voice.prompt_condition, content[:, first:begin]), dim=1),
        )
        if not speech.complete:
            content = torch.cat((content, self._stand_in()), dim=1)
        noise = self.stage.draw_noise(speech.segment.index, content.shape[1], self.generator)[:, begin:]
        frames = torch.tensor([noise.shape[1]], device=noise.device)
        (new,) = self.stage.flow(content[:, begin:], frames, [noise], behind_context, check)
        self.mel = torch.cat((self.mel[..., :begin], new[..., : end - begin]), dim=2)
        self.settled = end if speech.complete else max(begin, end - self.chunks.lookahead_frames)

    def _stand_in(self) -> Tensor:
        """What is said in the middle of the voice prompt, ``[1, frames, C]``: where there is speech, most likely."""
        condition = self.voice.prompt_condition
        surplus = max(0, condition.shape[1] - self.chunks.stand_in_frames)
        return condition[:, surplus // 2 :][:, : self.chunks.stand_in_frames]


class GrowingWave:
    """The waveform of a ``GrowingMel``, each sample once."""

    def __init__(self, stage: VocoderStage, chunks: ChunkSchedule) -> None:
        self.stage, self.chunks = stage, chunks
        self.reach_frames, self.hop_samples = stage.vocoder.reach_frames, stage.vocoder.hop_samples
        self.done = 0  # frames that have sounded
        self.fading: Tensor | None = None  # what the last chunk would have gone on with

    @torch.inference_mode()
    def grow(self, mel: GrowingMel) -> Tensor:
        """The samples ``[N]`` of the frames that have settled since the last call.

        Raises:
            UndefinedValues: a sample is not finite.
        """
        begin = max(0, self.done - self.reach_frames)
        wave = self.stage.wave(mel.mel[..., begin:])[(self.done - begin) * self.hop_samples :]
        if self.fading is not None:
            length = min(len(self.fading), len(wave))
            weight = torch.linspace(0, 1, length + 2, device=wave.device)[1:-1]
            wave[:length] = torch.lerp(self.fading[:length], wave[:length], weight)
        length = (mel.settled - self.done) * self.hop_samples
        self.fading = wave[length : length + self.chunks.fade_frames * self.hop_samples]
        self.done = mel.settled
        return wave[:length]
