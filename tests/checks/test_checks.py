"""The checklist: what fails, what is only noted, and that every failure says what to do."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from indextts.accel import deepspeed as accel_deepspeed
from indextts.accel.deepspeed import op_states
from indextts.checks import deepspeed as deepspeed_check
from indextts.checks import machine
from indextts.checks import speech as speech_check
from indextts.checks.machine import CudaFacts, Gpu, check_compilers, check_cuda, check_disk, check_python, check_torch
from indextts.checks.model import check_model, gather_model, weight_bytes
from indextts.checks.report import FAILED, NOTE, OK, Check
from indextts.checks.speech import AudioFacts, check_speech, judge, measure
from indextts.config import EngineConfig, ModelConfig
from indextts.errors import UnsupportedOption

ROOT = Path(__file__).parents[2]
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
GB = 10**9


def test_a_failure_without_advice_is_none() -> None:
    with pytest.raises(ValueError, match="advice"):
        Check("x", FAILED, "y")


def test_versions_are_those_of_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    low, below = (".".join(map(str, bound)) for bound in (machine.PYTHON_FROM, machine.PYTHON_BELOW))
    assert f'requires-python = ">={low},<{below}"' in project
    assert f'"torch=={machine.TORCH}.*"' in project
    wanted = re.search(r'"(deepspeed>=[^;]*);', project)
    assert wanted and f"'{wanted[1]}'" in deepspeed_check.INSTALL


def test_python() -> None:
    assert check_python().state == OK
    assert check_python((3, 9, 18)).state == check_python((3, 15, 0)).state == FAILED
    assert "3.10" in check_python((3, 9, 18)).advice


def test_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_torch().state == OK
    monkeypatch.setattr(machine, "TORCH", "1.0")
    assert check_torch().state == FAILED and "install 1.0" in check_torch().advice
    monkeypatch.setitem(sys.modules, "torch", None)
    assert check_torch().state == FAILED and "ModuleNotFoundError" in check_torch().found


def facts(
    built_for: tuple[int, int] | None = (13, 0), driver: tuple[int, int] | None = (13, 0), is_available: bool = True,
    capability: tuple[int, int] = (9, 0), free_bytes: int = 79 * GB,
) -> CudaFacts:  # fmt: skip
    gpus = (Gpu(0, "NVIDIA H100", capability, free_bytes, 80 * GB),) if is_available else ()
    return CudaFacts(built_for, driver, ARCHITECTURES, is_available, gpus)


def states(cuda: CudaFacts, needed_bytes: int | None = 6 * GB) -> list[str]:
    return [check.state for check in check_cuda(cuda, needed_bytes)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (facts(), [OK, OK, OK]),
        (facts(driver=(13, 2), built_for=(13, 0)), [OK, OK, OK]),
        (facts(driver=(13, 0), built_for=(13, 1)), [OK, OK, OK]),  # minor versions are compatible
        (facts(driver=(12, 8), is_available=False), [FAILED]),
        (facts(built_for=None, is_available=False), [FAILED]),
        (facts(is_available=False), [FAILED]),
        (facts(driver=None, is_available=False), [NOTE]),
        (facts(driver=None, built_for=None, is_available=False), [NOTE]),
        (facts(free_bytes=5 * GB), [OK, OK, FAILED]),
        (facts(capability=(8, 9)), [OK, OK, OK]),  # runs the binaries of 8.6
        (facts(capability=(7, 0)), [OK, FAILED, OK]),
        (facts(capability=(11, 0)), [OK, FAILED, OK]),
        (facts(capability=(13, 0)), [OK, OK, OK]),  # translates the code of 12.0
    ],
)
def test_cuda(found: CudaFacts, expected: list[str]) -> None:
    assert states(found) == expected


def test_cuda_says_which_versions() -> None:
    check = next(check_cuda(facts(driver=(12, 8), is_available=False), None))
    assert "12.8" in check.found and "13.0" in check.found and "CUDA 13" in check.advice
    assert states(facts(), None) == [OK, OK, NOTE]


def test_cuda_of_this_machine() -> None:
    found = machine.gather_cuda()
    assert len(found.gpus) > 0 if found.is_available else found.gpus == ()
    assert found.driver is not None or not found.is_available


def test_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", None)
    monkeypatch.setattr(machine.shutil, "which", lambda name, path=None: f"/bin/{name}")
    assert [check.state for check in check_compilers(on_cuda=True)] == [OK, OK]
    monkeypatch.setattr(machine.shutil, "which", lambda name, path=None: None)
    found = list(check_compilers(on_cuda=True))
    assert [check.state for check in found] == [NOTE, NOTE] and "cannot be built" in found[0].found
    assert len(list(check_compilers(on_cuda=False))) == 1


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage(10 * GB, 0, 2 * GB))
    assert check_disk(tmp_path / "not" / "yet").state == OK
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage(10 * GB, 0, GB // 2))
    check = check_disk(tmp_path)
    assert check.state == FAILED and "0.5 of 10.0 GB" in check.found and "make room" in check.advice


def test_kernels_of_deepspeed(capsys: pytest.CaptureFixture[str]) -> None:
    check, ops = deepspeed_check.check_deepspeed(is_asked=True)
    assert check.state == OK and check.found.startswith("0.19")
    assert {"cpu_adam", "async_io"} <= {op.name for op in ops}
    assert capsys.readouterr().out == ""  # for --json
    assert ops == op_states()


def test_no_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert [deepspeed_check.check_deepspeed(asked)[0].state for asked in (False, True)] == [NOTE, FAILED]


def test_a_broken_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed.ops.op_builder.all_ops", None)
    with pytest.raises(UnsupportedOption, match="cannot be imported"):
        accel_deepspeed.op_states()
    check, ops = deepspeed_check.check_deepspeed(is_asked=False)
    assert check.state == FAILED and "uv sync" in check.advice and ops == ()


@pytest.fixture
def model_dir(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def test_a_model_without_a_manifest(model_dir: Path) -> None:
    found = gather_model(model_dir)
    checks = {check.name: check for check in check_model(found)}
    assert checks["model"].state == OK and checks["model"].found == "IndexTTS-2"
    assert checks["model files"].state == NOTE and "no file is listed" in checks["model files"].found
    assert checks["emotion from text"].state == OK and "bundled classifier" in checks["emotion from text"].found
    by_qwen = check_model(dataclasses.replace(found, qwen_emotion=True))[-1]
    assert by_qwen.state == OK and "Qwen" in by_qwen.found


def test_a_damaged_model(model_dir: Path) -> None:
    from indextts.checkpoints import locate, record_files

    record_files(locate(model_dir)[1])
    assert [check.state for check in check_model(gather_model(model_dir))] == [OK, OK, OK]
    content = bytearray((model_dir / "gpt.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (model_dir / "gpt.pth").write_bytes(content)
    check = check_model(gather_model(model_dir))[1]
    assert check.state == FAILED and "gpt.pth: wrong SHA-256" in check.found and "download --force" in check.advice
    (model_dir / "feat1.pt").unlink()
    found = gather_model(model_dir)
    assert {file.path: file.state for file in found.files}["feat1.pt"] == "missing"
    (check,) = check_model(found)
    assert check.state == FAILED and "feat1.pt" in check.found and "indextts download" in check.advice


def test_the_weights_of_the_released_model() -> None:
    assert weight_bytes(ModelConfig()) == pytest.approx(5.9 * GB, rel=0.1)


RATE = 22050


def tone(seconds: float, peak: float) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return (np.sin(2 * np.pi * 200 * time) * peak * 32767).clip(-32768, 32767).astype(np.int16)


@pytest.mark.parametrize(
    ("samples", "wrong"),
    [
        (tone(3, 0.2), ""),
        (tone(3, 0.001), "silent"),
        (np.zeros(3 * RATE, np.int16), "silent"),
        (tone(3, 2.0), "clipped"),
        (np.full(3 * RATE, -32768, np.int16), "clipped"),
        (tone(0.2, 0.2), "should last 1 to 15 s"),
        (tone(20, 0.2), "should last 1 to 15 s"),
        (np.zeros(0, np.int16), "should last 1 to 15 s"),
    ],
)
def test_sound(samples: np.ndarray, wrong: str) -> None:
    check = judge(AudioFacts(*measure(samples, RATE), real_time_factor=1.0, device="cpu"))
    assert check.state == (FAILED if wrong else OK) and wrong in check.found


def test_an_option_that_is_not_honoured() -> None:
    audio = AudioFacts(*measure(tone(3, 0.2), RATE), real_time_factor=1.0, device="cpu", refused_options=("fp16: no",))
    assert judge(audio).state == FAILED and "fp16: no" in judge(audio).found


def test_levels() -> None:
    duration_s, rms_dbfs, clipped_share = measure(tone(2, 1.0), RATE)
    assert duration_s == 2 and rms_dbfs == pytest.approx(-3.0, abs=0.05) and clipped_share < 0.01


def test_a_missing_package_is_not_the_fault_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def speak_without(config: EngineConfig) -> None:
        raise ModuleNotFoundError("No module named 'hibari'")

    monkeypatch.setattr(speech_check, "speak", speak_without)
    check = check_speech(EngineConfig())
    assert check.state == FAILED and "hibari" in check.found and "uv sync" in check.advice and "GPU" not in check.advice


def test_the_bundled_voice_speaks(tmp_path: Path) -> None:
    check = check_speech(EngineConfig(ROOT / "checkpoints" / "nano", device="cpu", qwen_emotion=False))
    assert check.state == OK, check


def test_a_model_that_does_not_load(model_dir: Path) -> None:
    (model_dir / "gpt.pth").write_bytes(b"")
    check = check_speech(EngineConfig(model_dir, device="cpu"))
    assert check.state == FAILED and "gpt.pth" in check.found
    check = check_speech(EngineConfig(model_dir, device="cuda:77"))
    assert check.state == FAILED and check.advice
