"""What a configuration makes of the sound, against the first configuration.

All configurations speak the same sentences, with the same seeds and the same voices. Two ways of speaking:

- The codes that the *first* configuration drew, through the networks of each: its language model tells what it thinks
  of each code behind those before it, by the steps that it decodes with, and its flow and vocoder make a sound of them,
  from the same noise. What is then different is the error of the arithmetic.
- By its own draws. One rounding may turn a draw, and from there on another speech is spoken that need not be worse. So
  these recordings are not compared but kept for judges, as ``training.evaluate`` takes them (docs/performance.md).
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from indextts.bench.distances import distance_db, log_spectrum
from indextts.encoding import write_audio
from indextts.engine import Engine
from indextts.errors import ConfigError
from indextts.types import Segment, SpeechCodes, SynthesisRequest, SynthesisResult, VoicePrompt

logger = logging.getLogger(__name__)

CLIPS, PROMPTS = "clips.json", "prompts"


@dataclass(frozen=True)
class QualityPlan:
    """What every configuration says. The voices take turns; ``folder`` gets the recordings, if there is one."""

    sentences: tuple[str, ...]
    voices: tuple[VoicePrompt, ...]
    seed: int = 0
    folder: Path | None = None

    def voice(self, sentence: int) -> VoicePrompt:
        """The voice that says the sentence of this number."""
        return self.voices[sentence % len(self.voices)]

    def batches(self, size: int) -> Iterator[list[int]]:
        """Numbers of sentences in the same voice, ``size`` at most."""
        for first in range(min(len(self.voices), len(self.sentences))):
            same_voice = list(range(first, len(self.sentences), len(self.voices)))
            yield from (same_voice[start : start + size] for start in range(0, len(same_voice), size))


@dataclass(frozen=True)
class SoundDistance:
    """Between two sounds of the same codes.

    Attributes:
        mel: Mean absolute difference of the log-mels (natural logarithm).
        spectrum_db: Log-spectral distance of the waveforms.
    """

    mel: float
    spectrum_db: float


@dataclass(frozen=True)
class Difference:
    """From the first configuration, on its codes.

    Attributes:
        logit_error: Of all logits over the codes together: ``|own - first| / |first|``.
        same_best_code: Share of the places at which the most likely code is the same.
        same_speech: Share of the sentences in which the own draws are the same codes.
        sound: How far the sounds are apart.
    """

    logit_error: float
    same_best_code: float
    same_speech: float
    sound: SoundDistance


@dataclass(frozen=True)
class QualityFigures:
    """One configuration. The first one has no ``difference``, but tells how far noise alone takes a sound.

    Attributes:
        audio_s: Length of all that was spoken by the own draws.
        cut_off: How many sentences came to a limit before they ended.
        other_noise: Between two sounds that differ in nothing but the noise that the flow starts from.
    """

    audio_s: float
    cut_off: int
    difference: Difference | None = None
    other_noise: SoundDistance | None = None


@dataclass(frozen=True)
class _Rendering:
    """One sentence on given codes, on the CPU: ``logits [M + 1, V]``, ``mel [n_mels, F]`` and ``wave [N]``."""

    logits: Tensor
    mel: Tensor
    wave: Tensor


@dataclass
class Quality:
    """Goes from one configuration to the next, and keeps what the first one said on the CPU."""

    plan: QualityPlan
    codes: list[Tensor] = field(default_factory=list)
    reference: list[_Rendering] = field(default_factory=list)

    def measure(self, name: str, engine: Engine) -> QualityFigures:
        """Let a configuration speak, and compare it with the first one that came here.

        Raises:
            ConfigError: a sentence is too long to be spoken in one go.
            IndexTTSError: a sentence cannot be spoken.
        """
        plan = self.plan
        segments = [self._segment(engine, number) for number in range(len(plan.sentences))]
        logger.info("%s: speaking %d sentences", name, len(segments))
        results, own_codes = self._speak(engine)
        if plan.folder is not None:
            write_clips(plan.folder / name, plan, results)
        audio_s = sum(result.duration_s for result in results)
        cut_off = sum(bool(result.warnings) for result in results)
        logger.info("%s: speaking the codes of the first configuration", name)
        if not self.reference:
            self.codes, self.reference = own_codes, self._render(engine, segments, own_codes, plan.seed)
            other = self._render(engine, segments, own_codes, plan.seed + 1)
            return QualityFigures(audio_s, cut_off, other_noise=sound_distance(other, self.reference))
        renderings = self._render(engine, segments, self.codes, plan.seed)
        same = [torch.equal(own, first) for own, first in zip(own_codes, self.codes, strict=True)]
        difference = Difference(
            *logit_difference(renderings, self.reference),
            same_speech=sum(same) / len(same),
            sound=sound_distance(renderings, self.reference),
        )
        return QualityFigures(audio_s, cut_off, difference)

    def _segment(self, engine: Engine, number: int) -> Segment:
        """A sentence as the model reads it; its number decides on the noise that its flow starts from."""
        sentence = self.plan.sentences[number]
        segments = engine.segment(sentence, engine.max_text_tokens)
        if len(segments) != 1:
            raise ConfigError(f"sentence {number + 1} is too long to be spoken in one go: {sentence!r}")
        return dataclasses.replace(segments[0], index=number)

    def _speak(self, engine: Engine) -> tuple[list[SynthesisResult], list[Tensor]]:
        """What a user would get, sentence by sentence, and the codes of it."""
        results, codes = [], []
        for number, sentence in enumerate(self.plan.sentences):
            request = SynthesisRequest(
                sentence,
                self.plan.voice(number),
                max_text_tokens_per_segment=engine.max_text_tokens,
                seed=self.plan.seed + number,
                repair=False,  # the codes shall be those of one attempt
            )
            with noted_codes(engine) as noted:
                results.append(engine.synthesize(request))
            codes.append(noted[-1].codes.cpu())
        return results, codes

    def _render(
        self, engine: Engine, segments: Sequence[Segment], codes: Sequence[Tensor], seed: int
    ) -> list[_Rendering]:
        """The sentences on given codes, as many at once as the configuration speaks; ``seed`` is that of the noise."""
        stages, device = engine.stages, engine.models.device
        found: dict[int, _Rendering] = {}
        for batch in self.plan.batches(engine.config.batch_size):
            request = SynthesisRequest(self.plan.sentences[batch[0]], self.plan.voice(batch[0]))
            conditioning = stages.conditioning(request.voice, request.emotion, request.text, seed)
            own = [codes[number].to(device) for number in batch]
            spoken, logits = stages.speech.told([segments[number] for number in batch], conditioning, own)
            mels = stages.s2mel(spoken, conditioning.voice, torch.Generator(device).manual_seed(seed))
            for number, scores, mel in zip(batch, logits, mels, strict=True):
                wave = stages.vocoder.wave(mel)
                found[number] = _Rendering(scores.cpu(), mel[0].float().cpu(), wave.cpu())
        return [found[number] for number in range(len(segments))]


@contextmanager
def noted_codes(engine: Engine) -> Iterator[list[SpeechCodes]]:
    """Yields a list that takes all speech while the engine speaks."""
    stages, noted = engine.stages, []

    def speech(*args: object) -> list[SpeechCodes]:
        spoken = stages.speech(*args)  # type: ignore[arg-type]
        noted.extend(spoken)
        return spoken

    engine.stages = dataclasses.replace(stages, speech=speech)  # type: ignore[arg-type]
    try:
        yield noted
    finally:
        engine.stages = stages


def logit_difference(own: Sequence[_Rendering], first: Sequence[_Rendering]) -> tuple[float, float]:
    """Relative error of all logits together, and the share of places with the same most likely code."""
    pairs = [(one.logits, other.logits) for one, other in zip(own, first, strict=True)]
    error = sum(float((one - other).double().square().sum()) for one, other in pairs)
    size = sum(float(other.double().square().sum()) for _, other in pairs)
    same = torch.cat([one.argmax(-1) == other.argmax(-1) for one, other in pairs])
    return (error / size) ** 0.5, float(same.double().mean())


def sound_distance(own: Sequence[_Rendering], first: Sequence[_Rendering]) -> SoundDistance:
    """Mean over all frames of all sentences."""
    pairs = list(zip(own, first, strict=True))
    mel = torch.cat([(one.mel - other.mel).abs().mean(0) for one, other in pairs])
    spectrum = torch.cat([distance_db(log_spectrum(one.wave), log_spectrum(other.wave)) for one, other in pairs])
    return SoundDistance(float(mel.mean()), float(spectrum.mean()))


def voice_name(voice: VoicePrompt) -> str:
    """``af_bella`` of ``af_bella.flac``."""
    return Path(voice.name).stem


def write_clips(folder: Path, plan: QualityPlan, results: Sequence[SynthesisResult]) -> None:
    """The recordings as FLAC, and the list of them as ``training.evaluate`` reads it."""
    rows = []
    for number, result in enumerate(results):
        voice = voice_name(plan.voice(number))
        file = f"{number:03d}_{voice}.flac"
        write_audio(folder / file, result.samples, result.sample_rate_hz)
        rows.append({
            "file": file, "text": plan.sentences[number], "voice": voice,
            "synthesis_s": result.timings.total_s, "seed": result.seed, "warnings": result.warnings,
        })  # fmt: skip
    write_list(folder, rows)


def write_prompts(folder: Path, plan: QualityPlan) -> None:
    """The recordings that the voices are of, as they came, and the list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for voice in plan.voices:
        (folder / voice.name).write_bytes(voice.data)
    write_list(folder, [{"file": voice.name, "text": "", "voice": voice_name(voice)} for voice in plan.voices])


def write_list(folder: Path, rows: Sequence[dict[str, object]]) -> None:
    """``clips.json`` of a folder."""
    (folder / CLIPS).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
