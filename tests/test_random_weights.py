"""Random weights: the released shapes, the same for the same seed, and a pace that holds to the code."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from indextts.config import EngineConfig, SamplingParams
from indextts.decoding.backend import EagerBackend
from indextts.decoding.graphs import GraphBackend
from indextts.engine import Engine
from indextts.errors import ConfigError, SynthesisError, UnsupportedOption
from indextts.loading import build_networks
from indextts.random_weights import SIZES, CharacterTokenizer, PacedSpeech, fix_pace, random_engine, random_models
from indextts.stages.speech import SpeechStage
from indextts.text.normalizer import TextNormalizer
from indextts.types import FromVoice, Segment, SpeechCodes, SynthesisRequest, VoicePrompt
from tests.decoding.test_graphs import record

PACE = 5
CONFIG = EngineConfig(device="cpu")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return random_engine(CONFIG, "tiny", PACE)


@pytest.fixture(scope="module")
def voice(recordings: tuple[Path, Path]) -> VoicePrompt:
    return VoicePrompt.from_path(recordings[0])


def segment(index: int, length: int) -> Segment:
    return Segment(index, ("字",) * length, tuple(range(2, 2 + length)))


def speak(engine: Engine, voice: VoicePrompt, sampling: SamplingParams, lengths: tuple[int, ...]) -> list[SpeechCodes]:
    conditioning = engine.stages.conditioning(voice, FromVoice(), "", 0)
    segments = [segment(index, length) for index, length in enumerate(lengths)]
    return engine.stages.speech(segments, conditioning, sampling, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("lengths", [(1,), (7,), (3, 12, 1, 8)])
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(),
        SamplingParams(num_beams=1),
        SamplingParams(num_beams=1, do_sample=False),
        SamplingParams(num_beams=2, do_sample=False, length_penalty=1.0),
        SamplingParams(num_beams=4, top_k=0, top_p=1.0, repetition_penalty=1.0),
        SamplingParams(typical_sampling=True),
    ],
)
def test_every_segment_has_its_codes(
    engine: Engine, voice: VoicePrompt, sampling: SamplingParams, lengths: tuple[int, ...]
) -> None:
    spoken = speak(engine, voice, sampling, lengths)
    assert [len(speech.codes) for speech in spoken] == [PACE * length for length in lengths]
    assert not any(speech.reached_limit for speech in spoken)
    config = engine.models.config.gpt
    assert all(int(speech.codes.max()) < config.start_mel_token for speech in spoken)


def test_the_search_is_free_but_for_the_end(engine: Engine, voice: VoicePrompt) -> None:
    first, second = (
        engine.stages.speech(
            [segment(0, 6)],
            engine.stages.conditioning(voice, FromVoice(), "", 0),
            SamplingParams(num_beams=1),
            torch.Generator().manual_seed(seed),
        )[0].codes
        for seed in (0, 1)
    )
    assert len(first) == len(second) and not torch.equal(first, second)
    assert len(set(first.tolist())) > 10


def test_speech_ends_on_the_frame(engine: Engine, voice: VoicePrompt) -> None:
    result = engine.synthesize(SynthesisRequest("你好，今天天气很好。", voice, seed=0, repair=False))
    codes = PACE * len("你好，今天天气很好。")
    assert len(result.samples) == int(codes * 1.72) * 256
    assert result.samples.std() > 0
    assert engine.model_name == "random weights"


@pytest.mark.parametrize("size", SIZES)
def test_shapes_are_those_of_the_configuration(size: str) -> None:
    config = SIZES[size]()
    with torch.device("meta"):
        expected = {name: net.state_dict() for name, net in build_networks(config).items()}
    if size == "full":
        sizes = {name: sum(value.numel() for value in tensors.values()) for name, tensors in expected.items()}
        assert sum(sizes.values()) > 1.4e9
        return  # 6 GB of numbers are not for a test; that these shapes are the released ones is `test_loading`
    models = random_models(config, torch.device("cpu"), 0)
    for name, net in models.networks().items():
        own = {key: value.shape for key, value in net.state_dict().items()}
        theirs = {key: value.shape for key, value in expected[name].items() if not key.endswith(("_g", "_v"))}
        assert theirs.items() <= own.items()
        assert all(torch.isfinite(value).all() for value in net.state_dict().values())
        assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())


def test_seeds() -> None:
    state = torch.get_rng_state()
    one, same, other = (
        random_models(SIZES["tiny"](), torch.device("cpu"), seed).gpt.state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert not torch.equal(one["mel_head.weight"], other["mel_head.weight"])


def test_options_reach_the_report() -> None:
    engine = random_engine(dataclasses.replace(CONFIG, cuda_kernel=True), "tiny")
    refused = [entry.option for entry in engine.report.entries if not entry.honoured]
    assert refused == ["cuda-kernel"]
    with pytest.raises(UnsupportedOption, match="cuda-kernel"):
        random_engine(dataclasses.replace(CONFIG, cuda_kernel=True, strict=True), "tiny")


def test_no_room(engine: Engine, voice: VoicePrompt) -> None:
    sampling = SamplingParams()
    stage = engine.stages.speech
    assert isinstance(stage, PacedSpeech)
    longest = stage.longest_segment(sampling)
    assert len(speak(engine, voice, sampling, (longest,))[0].codes) == PACE * longest
    with pytest.raises(ConfigError, match=f"of {longest + 1} characters .* room for {longest}"):
        speak(engine, voice, sampling, (longest + 1,))


def test_a_pace_that_is_not_kept_is_an_error(voice: VoicePrompt) -> None:
    engine = random_engine(CONFIG, "tiny", PACE)
    engine.stages = dataclasses.replace(engine.stages, speech=PacedSpeech(engine.stages.speech, PACE + 1))
    with pytest.raises(SynthesisError, match=f"{4 * PACE} codes instead of {4 * (PACE + 1)}"):
        speak(engine, voice, SamplingParams(), (4,))


def test_a_backend_of_another_kind_is_refused(engine: Engine) -> None:
    class Strange:
        start_code, stop_code, max_codes = 0, 1, 2

    with pytest.raises(UnsupportedOption, match="Strange"):
        fix_pace(Strange(), engine.models.gpt, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "pace", "says"), [("huge", 11, "'huge'"), ("tiny", 0, "at least 1 code")])
def test_wrong_values(size: str, pace: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        random_engine(CONFIG, size, pace)


def test_characters_are_tokens() -> None:
    tokenizer = CharacterTokenizer(TextNormalizer(), 50)
    text = "你好，今天天气很好。"
    tokens = tokenizer.tokenize(text)
    assert len(tokens) == len(text) and tokens[:2] == ["你", "好"]
    ids = tokenizer.ids([chr(code) for code in range(32, 40000, 7)])
    assert set(ids) == set(range(2, 50)) and tokenizer.vocabulary_size == 50


@pytest.mark.parametrize("beams", [1, 3])
def test_the_pace_is_the_same_in_graphs(engine: Engine, voice: VoicePrompt, beams: int) -> None:
    gpt, sampling = engine.models.gpt, SamplingParams(num_beams=beams)
    backend = GraphBackend(gpt, record)  # CUDA graphs, played on the CPU
    fix_pace(backend, gpt, PACE)
    conditioning = engine.stages.conditioning(voice, FromVoice(), "", 0)
    segments = [segment(index, length) for index, length in enumerate((3, 12, 1, 8))]
    graphed = SpeechStage(gpt, backend)(segments, conditioning, sampling, torch.Generator().manual_seed(0))
    eager = speak(engine, voice, sampling, (3, 12, 1, 8))
    assert [speech.codes.tolist() for speech in graphed] == [speech.codes.tolist() for speech in eager]
    assert len(backend.stands) > 1


def test_the_pace_is_the_same_inside_deepspeed(engine: Engine, voice: VoicePrompt) -> None:
    wrapped = random_engine(dataclasses.replace(CONFIG, deepspeed=True), "tiny", PACE)
    assert all(entry.honoured for entry in wrapped.report.entries)
    theirs, ours = (speak(each, voice, SamplingParams(), (3, 6)) for each in (wrapped, engine))
    assert [speech.codes.tolist() for speech in theirs] == [speech.codes.tolist() for speech in ours]


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    yield torch.device("cuda", 0)


@pytest.mark.gpu
@pytest.mark.parametrize("option", ["deepspeed", "cuda_graph", "fp16"])
def test_the_pace_holds_with_accelerations(option: str, voice: VoicePrompt, cuda: torch.device) -> None:
    config = dataclasses.replace(CONFIG, device=str(cuda), batch_size=4, strict=True, **{option: True})
    engine = random_engine(config, "tiny", PACE)
    text = "你好，今天天气很好。" * 6
    for beams in (1, 3):
        sampling = SamplingParams(num_beams=beams)
        request = SynthesisRequest(text, voice, sampling=sampling, max_text_tokens_per_segment=20, repair=False)
        result = engine.synthesize(request)
        assert result.segments > 1 and result.samples.std() > 0  # PacedSpeech counts


class Recorded(EagerBackend):
    """Remembers what is fed."""

    def run_step(self, codes: Tensor, position: Tensor, slot: Tensor, bias: Tensor) -> Tensor:
        self.steps = getattr(self, "steps", 0) + 1
        return super().run_step(codes, position, slot, bias)


@pytest.mark.parametrize(("beams", "at_most"), [(1, 0), (3, 3)])
def test_few_steps_beyond_the_end(engine: Engine, voice: VoicePrompt, beams: int, at_most: int) -> None:
    backend = Recorded(engine.models.gpt)
    fix_pace(backend, engine.models.gpt, PACE)
    stage, text = SpeechStage(engine.models.gpt, backend), segment(0, 8)
    conditioning = engine.stages.conditioning(voice, FromVoice(), "", 0)
    stage([text], conditioning, SamplingParams(num_beams=beams), torch.Generator().manual_seed(0))
    assert 0 <= backend.steps - PACE * 8 <= at_most
