"""``--compile``: compiled layers compute what they computed before; where there is no compiler, the report says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import fresh_cache

from indextts.accel import accelerate
from indextts.accel.compile import apply_compile
from indextts.config import EngineConfig
from indextts.engine import Engine
from indextts.errors import UnsupportedOption
from indextts.models.dit import Keys, rotary_angles
from indextts.models.flow_matching import solve
from indextts.models.s2mel import S2Mel
from tests.accel.test_flow_graphs import CASES, assert_close, of
from tests.models.test_s2mel import CONFIG


@pytest.mark.slow
@pytest.mark.filterwarnings("default", "ignore:unclosed event loop:ResourceWarning")  # compilers warn
def test_compiled_layers_equal_plain_ones() -> None:
    torch.manual_seed(0)
    model = S2Mel(CONFIG).eval().requires_grad_(False)
    expected = {case: of(case)(solve, model) for case in CASES}
    apply_compile(model.estimator)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for case in CASES:
        assert_close(of(case)(solve, model), expected[case])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before


@pytest.mark.slow
@pytest.mark.filterwarnings("default", "ignore:unclosed event loop:ResourceWarning")
def test_speech_that_begins_elsewhere_is_told_apart() -> None:
    """The compiler's cache took what was compiled for all frames for what is compiled for the last ones."""
    torch.manual_seed(0)
    estimator = S2Mel(CONFIG).eval().requires_grad_(False).estimator
    transformer, frames = estimator.transformer, (40, 64, 48, 56)
    inputs = [torch.randn(2, count, 16) for count in frames]
    keys = [Keys(torch.zeros(2, 1, 1, count)) for count in frames]
    norms = torch.randn(1, 1, 9 * 32).split(32, dim=-1)
    cases = list(zip(inputs, keys, (0, 26, 0, 13), strict=True))

    def run(x: Tensor, keys: Keys, begin: int) -> Tensor:
        with torch.inference_mode():
            return transformer(x, norms, keys, rotary_angles(x.shape[1], 8, x.device), begin)

    expected = [run(*case) for case in cases]
    apply_compile(estimator)
    torch._dynamo.reset()
    with fresh_cache():
        for case, plain in zip(cases, expected, strict=True):
            assert_close(run(*case), plain)


def test_where_nothing_can_be_compiled_the_report_says_why(
    tiny_model_dir: Path, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile(function: Any) -> Any:
        def fail(*_: object) -> None:
            raise RuntimeError("no\ncompiler")

        return fail

    monkeypatch.setattr(torch, "compile", compile)
    config = EngineConfig(model_dir=tiny_model_dir, device="cpu", compile=True)
    _, report = accelerate(tiny_engine.models, config)
    assert "compile: off (torch.compile does not work here: no compiler)" in report.lines()
    with pytest.raises(UnsupportedOption, match=r"--compile: torch\.compile does not work here"):
        accelerate(tiny_engine.models, dataclasses.replace(config, strict=True))
