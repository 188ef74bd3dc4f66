"""``--compile``: compiled layers compute what they computed before; where there is no compiler, the report says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from indextts.accel import accelerate
from indextts.accel.compile import apply_compile
from indextts.config import EngineConfig
from indextts.engine import Engine
from indextts.errors import UnsupportedOption
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
