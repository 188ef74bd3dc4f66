"""Teacher forcing by decoding steps against the same in one pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from indextts.accel.deepspeed import DeepSpeedBackend, load_ds_config
from indextts.config import SamplingParams
from indextts.decoding import graphs
from indextts.decoding.backend import EagerBackend
from indextts.decoding.forced import forced_logits
from indextts.decoding.graphs import GraphBackend
from indextts.decoding.search import generate
from indextts.errors import UndefinedValues
from indextts.models.gpt import UnifiedVoice
from tests.decoding.conftest import CONFIG, texts
from tests.recorder import record


def some_codes(rows: int) -> tuple[Tensor, Tensor]:
    """Codes of different lengths, the longest as long as can be."""
    lengths = torch.tensor([17, CONFIG.max_mel_tokens + 1, 1, 8, 30, 5])[:rows]
    return torch.randint(0, 20, (rows, int(lengths.max())), generator=torch.Generator().manual_seed(3)), lengths


def assert_equals_one_pass(backend: EagerBackend, model: UnifiedVoice, conds: tuple[Tensor, Tensor], rows: int) -> None:
    (ids, id_lengths), (codes, lengths) = (x[:rows] for x in texts()), some_codes(rows)
    got = forced_logits(backend, *model.prefix(*conds, ids, id_lengths), codes)
    expected, _ = model.training_logits(*conds, ids, id_lengths, codes, lengths, decoding_positions=True)
    assert got.shape == expected.shape
    for one, other, length in zip(got, expected, lengths.tolist(), strict=True):
        torch.testing.assert_close(one[: length + 1], other[: length + 1], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 6])
def test_step_by_step_equals_one_pass(model: UnifiedVoice, conds: tuple[Tensor, Tensor], rows: int) -> None:
    assert_equals_one_pass(EagerBackend(model), model, conds, rows)


def test_replayed_steps(model: UnifiedVoice, conds: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between others, whose graphs of the same shape are no use."""
    monkeypatch.setattr(graphs, "GRAPH_SLOTS", 24)
    backend, greedy = GraphBackend(model, record), SamplingParams(num_beams=1, do_sample=False, max_mel_tokens=30)
    prefix = model.prefix(*conds, *(x[:2] for x in texts()))
    expected = generate(EagerBackend(model), *prefix, greedy).codes
    for _ in range(2):
        assert_equals_one_pass(backend, model, conds, 2)
        drawn = generate(backend, *prefix, greedy).codes
        assert [codes.tolist() for codes in drawn] == [codes.tolist() for codes in expected]


@pytest.mark.filterwarnings("default")  # importing DeepSpeed warns
def test_steps_in_deepspeed(model: UnifiedVoice, conds: tuple[Tensor, Tensor]) -> None:
    assert_equals_one_pass(DeepSpeedBackend(model, load_ds_config(None)), model, conds, 3)


def test_undefined_scores_are_an_error(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = EagerBackend(model)
    monkeypatch.setattr(backend, "run_step", lambda codes, *_: torch.full((*codes.shape, 22), torch.nan))
    with pytest.raises(UndefinedValues):
        forced_logits(backend, *model.prefix(*conds, *(x[:1] for x in texts())), some_codes(1)[0])
