"""Replayed steps against steps that run as they come. On the CPU, `tests.recorder` stands in for CUDA."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from indextts.accel.deepspeed import DeepSpeedCapture, load_ds_config
from indextts.config import SamplingParams
from indextts.decoding import graphs
from indextts.decoding.backend import EagerBackend
from indextts.decoding.graphs import GraphBackend
from indextts.decoding.search import Generation, generate
from indextts.errors import UnsupportedOption
from indextts.models.gpt import UnifiedVoice
from tests.decoding.conftest import texts
from tests.decoding.test_search import take_turns
from tests.recorder import record

pytestmark = pytest.mark.usefixtures("late_stops")


@pytest.fixture
def small_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "GRAPH_SLOTS", 24)


OPTIONS: list[dict[str, Any]] = [
    {"num_beams": 1, "do_sample": False, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
    {"num_beams": 1},
    {"num_beams": 1, "typical_sampling": True, "repetition_penalty": 1.0, "top_p": 1.0},
    {"num_beams": 2, "do_sample": False, "repetition_penalty": 1.5, "length_penalty": -1.0},
    {"num_beams": 3, "length_penalty": 0.0},
    {"num_beams": 3, "length_penalty": 1.0, "typical_sampling": True, "top_k": 0},
    {"num_beams": 4, "repetition_penalty": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "length_penalty": 0.5},
]


def decode(
    backend: EagerBackend, prefix: tuple[Tensor, Tensor], params: SamplingParams, seed: int, steps_per_look: int
) -> tuple[Generation, Tensor]:
    generator = torch.Generator(prefix[0].device).manual_seed(seed)
    result = generate(backend, *prefix, params, generator=generator, steps_per_look=steps_per_look)
    return result, generator.get_state()


def assert_equal(got: tuple[Generation, Tensor], expected: tuple[Generation, Tensor]) -> None:
    """The same codes, scores and a generator that stands at the same place."""
    assert [codes.tolist() for codes in got[0].codes] == [codes.tolist() for codes in expected[0].codes]
    assert got[0].hit_limit == expected[0].hit_limit
    assert got[0].scores == (None if expected[0].scores is None else pytest.approx(expected[0].scores, abs=1e-4))
    assert torch.equal(got[1], expected[1])


@pytest.mark.usefixtures("small_graphs")
@pytest.mark.parametrize("options", OPTIONS)
def test_replayed_steps_equal_eager_ones(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], options: dict[str, Any]
) -> None:
    params = SamplingParams(max_mel_tokens=30, **options)
    replayed, ids_and_lengths = GraphBackend(model, record), texts()
    lengths_seen = set()
    for seed, batch in enumerate((6, 3, 1, 3)):
        ids, lengths = (x[:batch] for x in ids_and_lengths)
        prefix = model.prefix(*conds, ids, lengths)
        expected = decode(EagerBackend(model), prefix, params, seed, 1)
        assert_equal(decode(replayed, prefix, params, seed, 8), expected)
        lengths_seen |= {len(codes) for codes in expected[0].codes}
    assert len(lengths_seen) > 3  # or the batches would never have shrunk


@pytest.mark.usefixtures("small_graphs")
def test_graphs_are_used_again_and_bounded_in_number(model: UnifiedVoice, conds: tuple[Tensor, Tensor]) -> None:
    captures: list[int] = []

    def counting(step: Callable[[], None], set_back: Callable[[], None]) -> Callable[[], None]:
        captures.append(1)
        return record(step, set_back)

    prefix = model.prefix(*conds, *texts())
    params = SamplingParams(max_mel_tokens=30, num_beams=1)
    expected = decode(EagerBackend(model), prefix, params, 0, 1)
    backend = GraphBackend(model, counting)
    assert_equal(decode(backend, prefix, params, 0, 8), expected)
    assert len(captures) > 2
    decode(backend, prefix, params, 0, 8)  # the memory has its size by now
    before = len(captures)
    for max_mel_tokens in (30, 29):
        decode(backend, prefix, dataclasses.replace(params, max_mel_tokens=max_mel_tokens), 0, 8)
    assert len(captures) == before
    backend.stands.limit = 2
    assert_equal(decode(backend, prefix, params, 0, 8), expected)
    assert len(backend.stands) <= 2


@pytest.mark.filterwarnings("default")  # importing DeepSpeed warns
@pytest.mark.usefixtures("small_graphs")
@pytest.mark.parametrize("options", [OPTIONS[1], OPTIONS[5]])
def test_steps_in_deepspeed_equal_eager_ones(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], options: dict[str, Any]
) -> None:
    """On the CPU, DeepSpeed runs each step instead of replaying it."""
    params = SamplingParams(max_mel_tokens=30, **options)
    prefix = model.prefix(*conds, *texts())
    deepspeed = GraphBackend(model, DeepSpeedCapture(model, load_ds_config(None)))
    for seed in range(2):
        expected = decode(EagerBackend(model), prefix, params, seed, 1)
        assert_equal(decode(deepspeed, prefix, params, seed, 8), expected)


@pytest.mark.usefixtures("small_graphs")
@pytest.mark.parametrize("num_beams", [1, 3])
def test_replayed_decodings_take_turns(model: UnifiedVoice, conds: tuple[Tensor, Tensor], num_beams: int) -> None:
    take_turns(GraphBackend(model, record), model, conds, num_beams)


def test_what_cannot_be_captured_is_an_error(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnsupportedOption, match="cpu"):
        GraphBackend(model)
    backend = GraphBackend(model, record)
    feed = backend.feed

    def looking(codes: Tensor, beams: Tensor | None) -> Tensor:
        assert int(codes[0, 0]) >= 0
        return feed(codes, beams)

    monkeypatch.setattr(backend, "feed", looking)
    with pytest.raises(UnsupportedOption, match=r"cannot be captured.*aten\.item"):
        generate(backend, *model.prefix(*conds, *texts()), SamplingParams(max_mel_tokens=8))


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # importing DeepSpeed warns
@pytest.mark.parametrize("options", OPTIONS)
def test_cuda_graphs_equal_eager_steps(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], options: dict[str, Any]
) -> None:
    prefix = tuple(x.cuda() for x in model.prefix(*conds, *texts()))
    params = SamplingParams(max_mel_tokens=30, **options)
    model.cuda()
    try:
        for graphed in (GraphBackend(model), GraphBackend(model, DeepSpeedCapture(model, load_ds_config(None)))):
            for seed in range(3):
                expected = decode(EagerBackend(model), prefix, params, seed, 1)  # type: ignore[arg-type]
                assert_equal(decode(graphed, prefix, params, seed, 8), expected)  # type: ignore[arg-type]
    finally:
        model.cpu()
