"""After the warm-up, common speech needs no further capture. `tests.recorder` stands in for CUDA."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch

from indextts.accel import flow_graphs, warm_up
from indextts.accel.flow_graphs import FlowGraphs, filled_up
from indextts.cuda_graphs import Replay
from indextts.decoding import graphs
from indextts.decoding.graphs import GraphBackend
from indextts.random_weights import random_models, tiny_config
from tests.recorder import record


@pytest.mark.parametrize("batch_size", [1, 2])
def test_common_shapes_are_captured_beforehand(
    batch_size: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    captures: list[int] = []

    def counting(step: Callable[[], None], set_back: Callable[[], None]) -> Replay:
        captures.append(1)
        return record(step, set_back)

    monkeypatch.setattr(warm_up, "SPEECH_S", 1)
    monkeypatch.setattr(graphs, "GRAPH_SLOTS", 256)
    models = random_models(tiny_config(), torch.device("cpu"), 0)
    models.s2mel.solve = solver = FlowGraphs(models.s2mel.estimator, counting)
    backend = GraphBackend(models.gpt, counting)
    with caplog.at_level(logging.INFO, "indextts"):
        warm_up.warm_up(models, backend, batch_size)
    assert len(solver.replays) == 2 * batch_size and len(backend.stands) >= batch_size
    assert f"warming up the flow, {2 * batch_size} of {2 * batch_size}: 1 x 128 frames" in caplog.text

    assert len(backend.stands) > batch_size  # or the cache never grew
    before = len(captures)
    with torch.inference_mode():
        for rows in {1, batch_size}:
            warm_up._integrate(models, rows, 150, 86)
            warm_up._decode(models, backend, rows)
    assert len(captures) == before


def test_shapes_come_in_falling_size_and_only_those_with_graphs() -> None:
    models = random_models(tiny_config(), torch.device("cpu"), 0)
    assert list(warm_up.flow_shapes(models.s2mel, 1, 100, 300)) == [(1, 300)]
    assert list(warm_up.flow_shapes(models.s2mel, 4, 100, 300)) == [(4, 300), (1, 300)]
    models.s2mel.solve = FlowGraphs(models.s2mel.estimator, record)
    shapes = list(warm_up.flow_shapes(models.s2mel, 4, 1291, 2497))
    sizes = [rows * frames for rows, frames in shapes]
    assert sizes == sorted(sizes, reverse=True) and max(sizes) <= flow_graphs.MAX_ROW_FRAMES
    assert {frames for rows, frames in shapes if rows == 1} == {filled_up(frames) for frames in range(1292, 2498)}
    assert (4, 2048) in shapes and (4, 2304) not in shapes
