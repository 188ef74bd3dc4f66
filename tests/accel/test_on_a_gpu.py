"""On a GPU, what is fast equals what is slow. The tests beside this one show what a CPU can show of it."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from indextts.accel import flow_graphs
from indextts.accel.compile import apply_compile
from indextts.accel.flow_graphs import FlowGraphs, apply_flow_graphs
from indextts.accel.fused_snake import apply_fused_snake
from indextts.accel.precision import apply_precision
from indextts.bench.measure import text_of
from indextts.checkpoints import BUNDLED_DIR
from indextts.config import EngineConfig, S2MelConfig, SamplingParams, VocoderConfig
from indextts.cuda_graphs import CudaCapture
from indextts.engine import Engine
from indextts.models.bigvgan import BigVGAN
from indextts.models.flow_matching import Solver, solve
from indextts.models.s2mel import S2Mel
from indextts.models.weight_norm import fold_weight_norm
from indextts.random_weights import random_engine
from indextts.resources import EVAL_SENTENCES
from indextts.types import SynthesisRequest, VoicePrompt
from tests.accel.test_flow_graphs import CASES, of
from tests.models.test_s2mel import CONFIG

pytestmark = pytest.mark.gpu

assert_close = partial(torch.testing.assert_close, atol=1e-4, rtol=1e-4)
HALVES = [(torch.float16, 0.02), (torch.bfloat16, 0.1)]
"""Precisions, and how large the error of a result may be, as a share of it."""


@pytest.fixture(autouse=True)
def no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions with ten bits of mantissa would differ by more than what these tests look for."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(autouse=True)
def memory_for_the_next() -> Iterator[None]:
    yield
    gc.collect()
    torch.cuda.empty_cache()


def s2mel(config: S2MelConfig) -> S2Mel:
    torch.manual_seed(0)
    return fold_weight_norm(S2Mel(config)).eval().requires_grad_(False).cuda()


@pytest.mark.parametrize("blocks", [(16, 8), (128, 256)])
def test_graphs_of_the_flow_equal_its_steps(blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_graphs, "FRAME_BLOCK", blocks[0])
    monkeypatch.setattr(flow_graphs, "START_BLOCK", blocks[1])
    model = s2mel(CONFIG)
    graphs = apply_flow_graphs(model)
    assert model.solve is graphs
    for cases in (CASES, reversed(CASES), CASES):
        for case in cases:
            for cfg_rate in (0.7, 0.0):
                run = partial(of(case, "cuda"), model=model, cfg_rate=cfg_rate)
                assert_close(run(model.solve), run(solve))
    captured = len(graphs.replays)
    of("one row", "cuda")(model.solve, model)
    assert len(graphs.replays) == captured
    graphs.replays.limit = 1
    for case in CASES:  # dropped graphs leave their memory to others
        run = partial(of(case, "cuda"), model=model)
        assert_close(run(model.solve), run(solve))


def full_size(model: S2Mel, solver: Solver, rows: int, speech_frames: int = 700, steps: int = 25) -> Tensor:
    """The mel of some rows behind a prompt of 15 s, each a few frames shorter than the one before."""
    generator = torch.Generator("cuda").manual_seed(rows)
    draw = partial(torch.randn, generator=generator, device="cuda")
    prompt_frames, frames = 1291, 1291 + speech_frames
    inputs = [draw(rows, 80, frames), draw(rows, frames, 512), draw(rows, 80, prompt_frames), draw(rows, 192)]
    lengths = frames - 10 * torch.arange(rows, device="cuda")
    ragged = {} if rows == 1 else {"x_lens": lengths}
    with torch.inference_mode():
        return solver(model.estimator, *inputs, steps=steps, cfg_rate=0.7, **ragged)


@pytest.mark.parametrize("rows", [1, 3])
def test_graphs_of_the_flow_at_full_size(rows: int) -> None:
    model = s2mel(S2MelConfig())
    expected = full_size(model, solve, rows)
    graphs = apply_flow_graphs(model)
    for _ in range(2):
        assert_close(full_size(model, graphs, rows), expected, atol=5e-4, rtol=1e-3)
    assert len(graphs.replays) == 1


@pytest.mark.parametrize(("dtype", "tolerance"), HALVES)
def test_the_flow_in_half_precision_is_near_float32(dtype: torch.dtype, tolerance: float) -> None:
    model = s2mel(S2MelConfig())
    expected = full_size(model, solve, 2)
    apply_precision("s2mel", model, dtype)
    as_it_comes, replayed = full_size(model, solve, 2), full_size(model, apply_flow_graphs(model), 2)
    assert replayed.dtype == torch.float32
    for mel in (as_it_comes, replayed):
        assert 0 < (mel - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize(("dtype", "tolerance"), HALVES)
def test_the_vocoder_in_half_precision_is_near_float32(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    vocoder = fold_weight_norm(BigVGAN(VocoderConfig())).eval().requires_grad_(False).cuda()
    mel = torch.randn(1, 80, 200, device="cuda")
    with torch.inference_mode():
        expected = vocoder(mel)
        apply_precision("vocoder", vocoder, dtype)
        plain = vocoder(mel)
        apply_fused_snake(vocoder)
        for wave in (plain, vocoder(mel)):
            assert wave.dtype == torch.float32
            assert 0 < (wave - expected).std() < tolerance * expected.std()


@pytest.mark.filterwarnings("default", "ignore:unclosed event loop:ResourceWarning")  # compilers warn
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_compiled_layers_of_the_flow(dtype: torch.dtype) -> None:
    model = s2mel(CONFIG)
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    if dtype != torch.float32:
        apply_precision("s2mel", model, dtype)
    expected = {case: of(case, "cuda")(solve, model) for case in CASES}
    apply_compile(model.estimator)
    graphs = FlowGraphs(model.estimator, CudaCapture(torch.device("cuda", 0)))
    for case in CASES:
        run = partial(of(case, "cuda"), model=model)
        assert_close(run(solve), expected[case], atol=tolerance, rtol=tolerance)
        assert_close(run(graphs), expected[case], atol=tolerance, rtol=tolerance)


@pytest.fixture
def config(tiny_model_dir: Path) -> EngineConfig:
    return EngineConfig(model_dir=tiny_model_dir, device="cuda", qwen_emotion=False, strict=True)


@pytest.fixture
def request_(recordings: tuple[Path, Path]) -> SynthesisRequest:
    sampling = SamplingParams(max_mel_tokens=30, do_sample=False, num_beams=1)
    voice = VoicePrompt.from_path(recordings[0])
    text = "Hello there, my friend. How are you?"
    return SynthesisRequest(text, voice, sampling=sampling, seed=1, batch_size=2, repair=False)


def test_an_engine_with_graphs_speaks_the_same(config: EngineConfig, request_: SynthesisRequest) -> None:
    eager, graphed = Engine.load(config), Engine.load(dataclasses.replace(config, cuda_graph=True))
    expected = eager.synthesize(request_).samples.astype(int)
    for _ in range(2):
        assert np.abs(graphed.synthesize(request_).samples.astype(int) - expected).max() <= 4


@pytest.mark.filterwarnings("default", "ignore:unclosed event loop:ResourceWarning")  # importing DeepSpeed warns
@pytest.mark.parametrize("option", ["fp16", "bf16"])
def test_everything_together_speaks(config: EngineConfig, request_: SynthesisRequest, option: str) -> None:
    everything = {option: True, "deepspeed": True, "cuda_graph": True, "cuda_kernel": True}
    engine = Engine.load(dataclasses.replace(config, batch_size=2, **everything))
    assert any(option in entry.running for entry in engine.report.entries)
    assert {p.dtype for p in engine.models.gpt.parameters()} == {engine.models.gpt.dtype} != {torch.float32}
    first, second = (engine.synthesize(request_).samples.astype(int) for _ in range(2))
    assert np.abs(first - second).max() <= 64 and np.abs(first).max() > 64


@pytest.mark.filterwarnings("default", "ignore:unclosed event loop:ResourceWarning")  # importing DeepSpeed warns
@pytest.mark.parametrize("option", ["fp16", "bf16"])
@pytest.mark.parametrize("kernels", [False, True])
def test_the_bundled_voice_speaks_at_the_first_attempt(option: str, kernels: bool) -> None:
    options = {option: True, "deepspeed": kernels, "cuda_kernel": kernels}
    engine = Engine.load(EngineConfig(BUNDLED_DIR, device="cuda", qwen_emotion=False, strict=True, **options))
    voices = sorted((BUNDLED_DIR.parents[1] / "examples").glob("voice_*"))
    for number, text in enumerate(EVAL_SENTENCES.read_text(encoding="utf-8").splitlines()[:16]):
        voice = VoicePrompt.from_path(voices[number % len(voices)])
        result = engine.synthesize(SynthesisRequest(text, voice, seed=number, repair=False))
        assert result.warnings == (), text
        assert result.duration_s > 0.5 and result.samples.astype(float).std() > 300, text


def test_memory_in_half_precision_at_full_size(recordings: tuple[Path, Path]) -> None:
    """13 s of speech by three beams with graphs, of an engine that was loaded for it: at most 5.0 GB."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    config = EngineConfig(device="cuda", fp16=True, cuda_graph=True, cuda_kernel=True, qwen_emotion=False, strict=True)
    engine = random_engine(config, "full")
    assert torch.cuda.max_memory_allocated() - before < 5.0e9
    torch.cuda.reset_peak_memory_stats()
    request = SynthesisRequest(text_of(60), VoicePrompt.from_path(recordings[0]), seed=1, repair=False)
    assert engine.synthesize(request).duration_s > 13
    assert torch.cuda.max_memory_allocated() - before < 5.0e9
