"""What goes wrong around the model: memory that is full, folders that cannot be written.

The table in ``docs/reliability.md`` names these and all other faults with their tests.
"""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indextts.accel import offload
from indextts.config import EngineConfig, SamplingParams
from indextts.engine import Engine
from indextts.errors import SynthesisError
from indextts.types import ChunkSchedule, SynthesisRequest, VoicePrompt

ROOT = Path(__file__).parents[1]
SHORT = SamplingParams(max_mel_tokens=10, num_beams=1)

READ_ONLY = """
import sys
from pathlib import Path

folder = str(Path(sys.argv[1]).resolve())

def refuse(event, args):  # cannot be removed again, hence a process of its own
    changes = event in ("os.mkdir", "os.remove", "os.rename") or event == "open" and set(str(args[1])) & set("wax+")
    if changes and str(args[0]).startswith(folder):
        raise OSError(30, "Read-only file system", str(args[0]))

sys.addaudithook(refuse)
if sys.argv[2:] == ["control"]:
    open(Path(folder, "new"), "w")

from indextts.config import EngineConfig
from indextts.engine import Engine
from indextts.types import ChunkSchedule, SynthesisRequest, VoicePrompt

engine = Engine.load(EngineConfig(model_dir=Path(folder), device="cpu"))
voice = VoicePrompt.from_path(Path("tests/golden/e2e_spk.wav"))
assert len(engine.synthesize(SynthesisRequest("Hello there.", voice, seed=0)).samples) > 0
"""


@pytest.fixture
def request_of_six(recordings: tuple[Path, Path]) -> SynthesisRequest:
    """Six segments in batches of at most four: of two and four, that the first sound comes soon."""
    text, voice = "Hello there. " * 6, VoicePrompt.from_path(recordings[0])
    return SynthesisRequest(
        text, voice, sampling=SHORT, batch_size=4, max_text_tokens_per_segment=3, seed=1, repair=False
    )


def full_for(more_than: int, stage: Callable[..., Any], tried: list[int]) -> Callable[..., Any]:
    """A stage that finds no memory for batches of more than so many segments."""

    def run(batch: list[Any], *arguments: Any) -> Any:
        tried.append(len(batch))
        if len(batch) > more_than:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return stage(batch, *arguments)

    return run


def test_a_batch_that_does_not_fit_is_halved(
    tiny_engine: Engine, request_of_six: SynthesisRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(tiny_engine.segment(request_of_six.text, 3)) == 6
    expected = tiny_engine.synthesize(request_of_six)
    tried: list[int] = []
    stages = tiny_engine.stages
    monkeypatch.setattr(tiny_engine, "stages", _with(stages, s2mel=full_for(1, stages.s2mel, tried)))
    result = tiny_engine.synthesize(request_of_six)
    assert tried == [2, 1, 1, 4, 2, 1, 1, 2, 1, 1]
    assert result.segments == 6 and len(result.samples) > 0.5 * len(expected.samples)
    halved = [warning for warning in result.warnings if "not enough memory" in warning]
    assert [warning.split(": ")[1] for warning in halved] == [
        f"{size} at a time from segment {first}" for size, first in ((1, 1), (2, 3), (1, 3), (1, 5))
    ]


@pytest.mark.parametrize("stage", ["conditioning", "speech", "s2mel"])
def test_a_segment_that_does_not_fit_is_an_error_and_the_next_request_is_served(
    tiny_engine: Engine, request_of_six: SynthesisRequest, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    stages = tiny_engine.stages
    with monkeypatch.context() as patch:
        patch.setattr(tiny_engine, "stages", _with(stages, **{stage: full}))
        with pytest.raises(SynthesisError, match=r"the memory of cpu is not enough for .*: try shorter segments"):
            tiny_engine.synthesize(request_of_six)
    assert np.abs(tiny_engine.synthesize(request_of_six).samples).max() > 0


@pytest.mark.parametrize(
    ("stage", "what"), [("conditioning", "for the recording"), ("s2mel", "for segment 1")]
)  # fmt: skip
def test_what_does_not_fit_is_tried_again_with_less_on_the_device(
    tiny_model_dir: Path, request_of_six: SynthesisRequest, monkeypatch: pytest.MonkeyPatch, stage: str, what: str
) -> None:
    """The device has no room for anything until the networks that listen rest in main memory."""
    engine = Engine.load(EngineConfig(model_dir=tiny_model_dir, device="cpu"))
    request = dataclasses.replace(request_of_six, batch_size=1)
    expected = engine.synthesize(request)
    work, resting = getattr(engine.stages, stage), []
    monkeypatch.setattr(offload, "can_offload", lambda device: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)

    def full(*arguments: Any) -> Any:
        resting.append(any(entry.option == "cpu-offload" for entry in engine.report.entries))
        if not resting[-1]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return work(*arguments)

    engine.stages = _with(engine.stages, **{stage: full})
    result = engine.synthesize(request)
    assert np.array_equal(result.samples, expected.samples)
    assert resting[:2] == [False, True] and all(resting[1:])
    assert [warning for warning in result.warnings if "cut off" not in warning] == [
        f"not enough memory {what}: networks that listen to recordings rest in main memory from now on"
    ]
    (entry,) = [entry for entry in engine.report.entries if entry.option == "cpu-offload"]
    assert entry.honoured and entry.asked == "when the memory was full"

    def still_full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    engine.stages = _with(engine.stages, **{stage: still_full})
    with pytest.raises(SynthesisError, match=f"the memory of cpu is not enough {what}: try shorter segments"):
        engine.synthesize(request)


def test_speech_that_has_begun_goes_on_where_it_was(
    tiny_model_dir: Path, request_of_six: SynthesisRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is full in the middle of a segment in chunks: it is spoken again, and heard from there on."""
    engine = Engine.load(EngineConfig(model_dir=tiny_model_dir, device="cpu"))
    chunks, sampling = ChunkSchedule(first_codes=8, max_codes=8, lookahead_frames=4), SamplingParams(max_mel_tokens=40)
    request = dataclasses.replace(request_of_six, batch_size=None, chunks=chunks, sampling=sampling)
    expected = list(engine.stream(request))
    assert sum(chunk.segment == 0 for chunk in expected) > 3
    flow, calls = engine.stages.s2mel.flow, itertools.count()
    monkeypatch.setattr(offload, "can_offload", lambda device: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)

    def full_at_the_third_call(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return flow(*arguments)

    monkeypatch.setattr(engine.stages.s2mel, "flow", full_at_the_third_call)
    chunks_of_result = list(engine.stream(request))
    assert [len(chunk.samples) for chunk in chunks_of_result] == [len(chunk.samples) for chunk in expected]
    for got, wanted in zip(chunks_of_result, expected, strict=True):
        assert np.array_equal(got.samples, wanted.samples)


def _with(stages: Any, **changed: Any) -> Any:
    return type(stages)(**{**vars(stages), **changed})


@pytest.mark.parametrize(("words", "code"), [([], 0), (["control"], 1)])
def test_a_model_folder_that_cannot_be_written(tiny_model_dir: Path, words: list[str], code: int) -> None:
    command = [sys.executable, "-c", READ_ONLY, str(tiny_model_dir), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert ("Read-only file system" in done.stderr) == bool(words)
