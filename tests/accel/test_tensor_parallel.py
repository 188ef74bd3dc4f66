"""A language model that is split over two processes draws the codes of a whole one; and how such processes end."""

from __future__ import annotations

import copy
import gc
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from indextts.accel.ds_config import load_ds_config
from indextts.accel.tensor_parallel import TensorParallelBackend, blocks, processes
from indextts.cli import main
from indextts.config import SamplingParams
from indextts.decoding import backend as decoding
from indextts.decoding.backend import EagerBackend
from indextts.decoding.search import Generation, generate
from indextts.errors import SynthesisError, UnsupportedOption
from indextts.models.gpt import UnifiedVoice
from indextts.models.gpt2 import GPT2
from tests.decoding.conftest import conds, model, texts
from tests.decoding.test_search import take_turns

__all__ = ["conds", "model"]

ROOT = Path(__file__).parents[2]
Conds = tuple[Tensor, Tensor]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed is for Linux"),
    pytest.mark.filterwarnings("default", "ignore:unclosed event loop:ResourceWarning"),  # importing DeepSpeed warns
]

ON_THE_GPU = "DeepSpeed works on the GPU where there is one"
on_the_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason=ON_THE_GPU)

OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1, "do_sample": False},
    "sampling": {"num_beams": 1},
    "beams": {"num_beams": 3},
}

PROGRAM = """
import time
import torch
from indextts.accel.ds_config import load_ds_config
from indextts.accel.tensor_parallel.processes import Workers

workers = Workers(2, "cpu")
workers.tell("hold", 8, 1, 1, torch.float32, load_ds_config(None))  # after which it waits for weights
print(*(process.pid for process in workers.processes), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def split(model: UnifiedVoice) -> Iterator[TensorParallelBackend]:
    if torch.cuda.is_available():
        pytest.skip(ON_THE_GPU)
    backend = TensorParallelBackend(copy.deepcopy(model), 2, load_ds_config(None))
    yield backend
    backend.close()


def decode(backend: EagerBackend, prefix: tuple[Tensor, Tensor], options: dict[str, Any]) -> Generation:
    generator = torch.Generator(prefix[0].device).manual_seed(5)
    return generate(backend, *prefix, SamplingParams(max_mel_tokens=30, **options), generator=generator)


def assert_equal(got: Generation, expected: Generation, tolerance: float = 1e-3) -> None:
    assert [codes.tolist() for codes in got.codes] == [codes.tolist() for codes in expected.codes]
    assert got.hit_limit == expected.hit_limit
    assert got.scores == (None if expected.scores is None else pytest.approx(expected.scores, abs=tolerance))


def test_linear_layers_compute_the_same_in_another_order(model: UnifiedVoice) -> None:
    whole, linear = model.gpt, copy.deepcopy(model.gpt)
    blocks.use_linear_layers(linear, 1)
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(linear(x), whole(x))
    split = copy.deepcopy(whole)
    blocks.use_linear_layers(split, 2)
    rows = split.h[0].attn.c_attn.weight.chunk(2)[1]  # what the second process gets: the second of two heads
    queries_keys_values = whole.h[0].attn.c_attn.weight.T.unflatten(0, (3, 2, -1))
    assert torch.equal(rows, queries_keys_values[:, 1].flatten(0, 1))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_two_processes_draw_the_codes_of_one(
    split: TensorParallelBackend,
    model: UnifiedVoice,
    conds: Conds,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "FIRST_STEPS", 2)  # so that the cache has to grow
    monkeypatch.setattr(decoding, "SLOT_BLOCK", 4)
    ids_and_lengths = texts()
    for batch in (6, 1, 3):
        prefix = model.prefix(*conds, *(x[:batch] for x in ids_and_lengths))
        expected = decode(EagerBackend(model), prefix, options)
        assert_equal(decode(split, prefix, options), expected)
    assert split.state.cache.storage.shape[3] == 1  # of two heads


def test_decodings_take_turns(split: TensorParallelBackend, model: UnifiedVoice, conds: Conds) -> None:
    """The second process keeps the caches of those that are set aside."""
    take_turns(split, model, conds, num_beams=1)


def test_the_weights_are_shared_out(split: TensorParallelBackend, model: UnifiedVoice) -> None:
    from deepspeed.inference.engine import InferenceEngine

    trunk = split.model.gpt
    assert not isinstance(trunk, GPT2) and isinstance(trunk.engine, InferenceEngine)
    whole, share = (sum(p.numel() for p in net.parameters()) for net in (model.gpt, trunk))
    assert 0.5 < share / whole < 0.53  # norms and the biases of sums are everybody's


def test_the_second_pass_is_the_same(split: TensorParallelBackend, model: UnifiedVoice, conds: Conds) -> None:
    ids, lengths = texts()
    codes = torch.randint(0, 20, (len(ids), 9), generator=torch.Generator().manual_seed(3))
    expected, got = (net.latents(*conds, ids, codes, lengths) for net in (model, split.model))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_process_that_runs_out_of_memory_keeps_up_with_the_other(
    split: TensorParallelBackend, model: UnifiedVoice, conds: Conds, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = model.prefix(*conds, *texts())
    attention, calls = F.scaled_dot_product_attention, 0

    def full(*arguments: Any, **options: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:  # in the second of two layers
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return attention(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", full)
        with pytest.raises(torch.OutOfMemoryError):
            decode(split, prefix, OPTIONS["greedy"])
    expected = decode(EagerBackend(model), prefix, OPTIONS["greedy"])
    assert_equal(decode(split, prefix, OPTIONS["greedy"]), expected)


def test_there_is_one_group_in_a_process(split: TensorParallelBackend, model: UnifiedVoice) -> None:
    with pytest.raises(UnsupportedOption, match="--ds-tp-size 2: this process is part of a group"):
        TensorParallelBackend(copy.deepcopy(model), 2, load_ds_config(None))


def test_the_end_of_a_process_is_an_error_by_name(
    split: TensorParallelBackend, model: UnifiedVoice, conds: Conds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while it is waited for. No test after this one can use ``split``."""
    (worker,) = split.workers.processes
    prefix, feed, steps = model.prefix(*conds, *texts()), split.feed, 0

    def kill_at_third_step(codes: Tensor, beams: Tensor | None) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == 3:
            worker.send_signal(signal.SIGSTOP)
            threading.Timer(0.5, worker.kill).start()
        return feed(codes, beams)

    monkeypatch.setattr(split, "feed", kill_at_third_step)
    says = r"process 1 of --ds-tp-size 2 has ended with code -9 .* started again"
    for _ in range(2):
        with pytest.raises(SynthesisError, match=says):
            decode(split, prefix, OPTIONS["greedy"])
    assert steps == 3


@on_the_cpu
def test_one_command_starts_and_ends_all(
    tiny_model_dir: Path, recordings: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched, launch = [], processes._launch

    def launch_and_note() -> subprocess.Popen[bytes]:
        launched.append(launch())
        return launched[-1]

    monkeypatch.setattr(processes, "_launch", launch_and_note)
    for name, options in (("one.wav", ["--strict"]), ("two.wav", ["--strict", "--deepspeed", "--ds-tp-size", "2"])):
        words = ["synth", "--model-dir", str(tiny_model_dir), "--device", "cpu", "--voice", str(recordings[0])]
        words += ["--text", "Hello there.", "--seed", "1", "--max-mel-tokens", "9", "-o", str(tmp_path / name)]
        assert main([*words, *options]) == 0
    one, two = (read_wav(tmp_path / name) for name in ("one.wav", "two.wav"))
    assert one.shape == two.shape and np.abs(one).max() > 1000
    assert np.abs(one - two).max() < 0.01 * np.abs(one).max()
    gc.collect()  # the engine is gone with the command
    assert [process.wait(processes.END_S) for process in launched] == [0]


def read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16).astype(int)


@on_the_cpu
@pytest.mark.slow
def test_the_others_end_with_the_program() -> None:
    """However it ends: here it is killed."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            (worker,) = program.stdout.readline().split()
            assert Path("/proc", worker).exists()
        finally:
            program.kill()
    deadline_s = time.monotonic() + processes.END_S
    while is_running(worker) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not is_running(worker)


def is_running(pid: str) -> bool:
    """Whether there is such a process that is no zombie, which containers without an init do not bury."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float16, 1e-2)])
def test_two_gpus_draw_the_codes_of_one(
    model: UnifiedVoice, conds: Conds, dtype: torch.dtype, tolerance: float
) -> None:
    whole = copy.deepcopy(model).to("cuda", dtype)
    prefix = model.prefix(*conds, *texts())
    prefix = prefix[0].to("cuda", dtype), prefix[1].cuda()
    expected = [decode(EagerBackend(whole), prefix, options) for options in OPTIONS.values()]
    split = TensorParallelBackend(whole, 2, load_ds_config(None))
    try:
        for options, one in zip(OPTIONS.values(), expected, strict=True):
            assert_equal(decode(split, prefix, options), one, tolerance)
        split.workers.processes[0].kill()
        with pytest.raises(SynthesisError, match="process 1 of --ds-tp-size 2 has ended"):
            for _ in range(1000):
                decode(split, prefix, OPTIONS["greedy"])
    finally:
        split.close()
