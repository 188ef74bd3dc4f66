"""Measuring: one engine after the other, each the same texts in the same way.

A text is spoken a few times to warm up, then repeatedly on the clock. Timed are whole runs as they are (`synthesize`),
the time to the first sound (`stream`, by segments and by chunks of them), and in runs of their own the stages, each of
which then waits for the device: otherwise a stage would be charged for what an earlier one has left on the GPU's queue.
The voice is cached before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from indextts.bench.flow import flow_times_s
from indextts.bench.machine import PeakMemory, synchronize
from indextts.bench.quality import Quality, QualityFigures, QualityPlan
from indextts.config import EngineConfig, SamplingParams
from indextts.engine import Engine
from indextts.errors import ConfigError, IndexTTSError
from indextts.random_weights import PacedSpeech, random_engine
from indextts.types import AccelerationEntry, ChunkSchedule, SpeechCodes, SynthesisRequest, VoicePrompt

logger = logging.getLogger(__name__)

PASSAGE = (
    "清晨的山谷里飘着一层薄薄的雾，溪水从石头之间流过，声音又轻又远。"
    "老人推开木门，看见院子里的梅花已经开了，便搬来一把椅子坐下。"
    "他想起很多年以前，也是这样一个早晨，朋友从远方回来，带着一身风雪和满口袋的故事。"
    "那时候他们都还年轻，说起话来没有尽头，茶凉了又热，热了又凉。"
    "如今朋友住在海边的小城，每个月写一封信，信里总是问，今年的梅花开了没有。"
    "老人站起来，折下最小的一枝，放进信封，又在纸上慢慢写了几个字，开了，等你回来一起看。"
)

STAGES = ("speech", "s2mel", "vocoder")


def text_of(characters: int) -> str:
    """A Chinese text of so many characters, punctuation included; it ends like a sentence."""
    text = PASSAGE * (characters // len(PASSAGE) + 1)
    return text[: characters - 1].rstrip("，。").ljust(characters - 1, "啊") + "。"


@dataclass(frozen=True)
class Plan:
    """What every configuration has to do.

    ``long_characters`` 0 leaves the long text out, no ``beams`` all of the speed. ``random_weights`` None means the
    model in the engine's folder.
    """

    voice: VoicePrompt = field(repr=False)
    characters: int = 60
    long_characters: int = 1000
    beams: tuple[int, ...] = (3, 1)
    repetitions: int = 3
    long_repetitions: int = 1
    warm_ups: int = 1
    long_warm_ups: int = 1
    max_text_tokens: int = 120
    quick_streaming_tokens: int = 0
    seed: int = 0
    random_weights: str | None = None
    codes_per_character: int | None = None  # of random weights only
    quality: QualityPlan | None = None  # not of random weights


@dataclass(frozen=True)
class Repeated:
    """One quantity, measured several times."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


@dataclass(frozen=True)
class TextFigures:
    """How long a text took: ``total_s`` as it is, whatever may run side by side. And the most memory meanwhile."""

    characters: int
    segments: int
    audio_s: float
    total_s: Repeated
    peak_memory_bytes: int | None

    @property
    def real_time_factor(self) -> float:
        return self.total_s.median / self.audio_s

    @property
    def characters_per_s(self) -> float:
        return self.characters / self.total_s.median


@dataclass(frozen=True)
class BeamFigures:
    """All about one number of beams. ``stages_s`` and ``codes`` are of the short text.

    ``first_sound_s`` is the time to the first whole segment, ``first_chunk_s`` that to its first chunk.
    """

    beams: int
    short: TextFigures
    first_sound_s: Repeated
    first_chunk_s: Repeated
    stages_s: dict[str, Repeated]
    codes: int
    long: TextFigures | None

    @property
    def code_ms(self) -> float:
        """Time of the speech stage for each code of the short text."""
        return 1000 * self.stages_s["speech"].median / self.codes


@dataclass(frozen=True)
class ConfigFigures:
    """One configuration: what it is, how it came up and what it can do; or the ``error`` that ended it.

    ``first_run_s`` is the first run after the load, which hears the voice in ``voice_s`` of it. ``flow_s`` is of one
    request of a fixed size (``indextts.bench.flow``) in ``flow_steps``.
    """

    name: str
    acceleration: tuple[AccelerationEntry, ...] = ()
    load_s: float | None = None
    load_memory_bytes: int | None = None
    first_run_s: float | None = None
    voice_s: float | None = None
    beams: tuple[BeamFigures, ...] = ()
    flow_s: Repeated | None = None
    flow_steps: int = 0
    quality: QualityFigures | None = None
    error: str | None = None


@dataclass(frozen=True)
class BenchReport:
    """The whole benchmark. ``configs`` are in the order asked for; the first is what others are compared with."""

    machine: dict[str, str | int]
    model: str
    memory_kind: str
    plan: Plan
    configs: tuple[ConfigFigures, ...]


def load_engine(config: EngineConfig, plan: Plan) -> Engine:
    """The engine to measure: of the model files, or of random weights as planned."""
    if plan.random_weights is None:
        return Engine.load(config)
    assert plan.codes_per_character is not None
    return random_engine(config, plan.random_weights, plan.codes_per_character, plan.seed)


def measure_configs(
    configs: Mapping[str, EngineConfig],
    plan: Plan,
    device: torch.device,
    on_progress: Callable[[Sequence[ConfigFigures], str], None],
) -> list[ConfigFigures]:
    """Measure one configuration after the other. One that fails is reported as such, and the rest goes on.

    Args:
        on_progress: Called after each with the figures so far and the name of the model.

    Raises:
        ConfigError: a configuration or the plan contradicts itself or the model: no machine could do it.
    """
    found: list[ConfigFigures] = []
    model_name = "not loaded"
    quality = None if plan.quality is None else Quality(plan.quality)
    for name, config in configs.items():
        logger.info("%s: loading", name)
        memory = PeakMemory(device)
        memory.reset()
        try:
            started = time.perf_counter()
            engine = load_engine(config, plan)
            synchronize(device)
            load_s = time.perf_counter() - started
            model_name = engine.model_name
            figures = _measure_engine(name, engine, plan, memory, load_s)
            if quality is not None:
                figures = dataclasses.replace(figures, quality=quality.measure(name, engine))
            found.append(figures)
        except ConfigError:
            raise
        except (IndexTTSError, torch.OutOfMemoryError) as error:
            found.append(ConfigFigures(name, error=f"{type(error).__name__}: {' '.join(str(error).split())}"))
            logger.error("%s: %s", name, found[-1].error)
        engine = None  # its memory is not the next one's
        on_progress(found, model_name)
    return found


def _measure_engine(name: str, engine: Engine, plan: Plan, memory: PeakMemory, load_s: float) -> ConfigFigures:
    load_memory_bytes = memory.read()
    if not plan.beams:
        return ConfigFigures(name, engine.report.entries, load_s, load_memory_bytes)
    requests = [_request(engine, plan, plan.characters, beams) for beams in plan.beams]
    started = time.perf_counter()
    first = engine.synthesize(requests[0])
    first_run_s = time.perf_counter() - started
    measured = []
    for beams, request in zip(plan.beams, requests, strict=True):
        logger.info("%s: %d beams", name, beams)
        measured.append(_measure_beams(engine, plan, beams, request, memory))
    logger.info("%s: flow", name)
    flow_s = Repeated(tuple(flow_times_s(engine, plan.voice, max(1, plan.warm_ups), plan.repetitions)))
    return ConfigFigures(
        name,
        engine.report.entries,
        load_s,
        load_memory_bytes,
        first_run_s,
        first.timings.conditioning_s,
        tuple(measured),
        flow_s,
        engine.models.config.s2mel.steps,
    )


def _request(engine: Engine, plan: Plan, characters: int, beams: int) -> SynthesisRequest:
    sampling = dataclasses.replace(engine.sampling_defaults, num_beams=beams)
    return SynthesisRequest(
        text=text_of(characters),
        voice=plan.voice,
        sampling=sampling,
        max_text_tokens_per_segment=_segment_tokens(engine, plan, sampling),
        quick_streaming_tokens=plan.quick_streaming_tokens,
        interval_silence_ms=0,  # silence is no achievement
        seed=plan.seed,
        repair=False,  # another attempt would be measured with the first
    )


def _segment_tokens(engine: Engine, plan: Plan, sampling: SamplingParams) -> int:
    """As planned, or less where random weights keep a pace that has no room for so much."""
    stage = engine.stages.speech
    if not isinstance(stage, PacedSpeech):
        return plan.max_text_tokens
    fitting = stage.longest_segment(sampling) - 1  # a closing quote may come on top
    if fitting < 2:
        raise ConfigError(f"{stage.codes_per_token} codes a character are too many: a segment has no room for two")
    return min(plan.max_text_tokens, fitting)


def _measure_beams(
    engine: Engine, plan: Plan, beams: int, request: SynthesisRequest, memory: PeakMemory
) -> BeamFigures:
    short = _measure_text(engine, request, plan.warm_ups, plan.repetitions, memory)
    in_chunks = dataclasses.replace(request, chunks=ChunkSchedule())
    for _ in range(plan.warm_ups):
        _first_sound_s(engine, in_chunks)
    first_sound_s, first_chunk_s = (
        Repeated(tuple(_first_sound_s(engine, asked) for _ in range(plan.repetitions)))
        for asked in (request, in_chunks)
    )
    with waiting_stages(engine) as codes:
        timings = [engine.synthesize(request).timings for _ in range(plan.repetitions)]
    long = None
    if plan.long_characters:
        long_request = _request(engine, plan, plan.long_characters, beams)
        long = _measure_text(engine, long_request, plan.long_warm_ups, plan.long_repetitions, memory)
    return BeamFigures(
        beams=beams,
        short=short,
        first_sound_s=first_sound_s,
        first_chunk_s=first_chunk_s,
        stages_s={stage: Repeated(tuple(getattr(t, f"{stage}_s") for t in timings)) for stage in STAGES},
        codes=sum(codes) // plan.repetitions,
        long=long,
    )


def _measure_text(
    engine: Engine, request: SynthesisRequest, warm_ups: int, repetitions: int, memory: PeakMemory
) -> TextFigures:
    memory.reset()
    for _ in range(warm_ups):
        engine.synthesize(request)
    results = [engine.synthesize(request) for _ in range(repetitions)]
    return TextFigures(
        characters=len(request.text),
        segments=results[0].segments,
        audio_s=results[0].duration_s,
        total_s=Repeated(tuple(result.timings.total_s for result in results)),
        peak_memory_bytes=memory.read(),
    )


def _first_sound_s(engine: Engine, request: SynthesisRequest) -> float:
    """From the request to its first samples. The rest of the sound is not waited for."""
    started = time.perf_counter()
    with contextlib.closing(engine.stream(request)) as chunks:  # type: ignore[type-var]
        next(chunks)
        return time.perf_counter() - started


class _WaitingStage:
    """A stage that has done its work when it returns."""

    def __init__(self, stage: Any, device: torch.device) -> None:
        self.stage, self.device = stage, device
        self.note: Callable[[Any], None] | None = None

    def __call__(self, *args: Any) -> Any:
        result = self.stage(*args)
        synchronize(self.device)
        if self.note is not None:
            self.note(result)
        return result


@contextlib.contextmanager
def waiting_stages(engine: Engine) -> Iterator[list[int]]:
    """Let every stage wait for the device, so that its time is its own.

    Yields:
        A list that takes the number of codes of each spoken segment.
    """
    stages, device = engine.stages, engine.models.device
    codes: list[int] = []

    def note_codes(spoken: Sequence[SpeechCodes]) -> None:
        codes.extend(len(speech.codes) for speech in spoken)

    waiting = {name: _WaitingStage(getattr(stages, name), device) for name in STAGES}
    waiting["speech"].note = note_codes
    engine.stages = dataclasses.replace(stages, **waiting)
    try:
        yield codes
    finally:
        engine.stages = stages
