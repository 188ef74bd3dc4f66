"""Running once what the first request shall not wait for: captures, compilations, libraries that set themselves up."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator

import torch

from indextts.accel.flow_graphs import MAX_ROW_FRAMES, FlowGraphs, filled_up
from indextts.decoding.backend import DecodeBackend
from indextts.decoding.search import generate
from indextts.loading import Models
from indextts.models.s2mel import S2Mel

logger = logging.getLogger(__name__)

SPEECH_S = 14
"""Segments that are prepared for speak up to this long: 120 tokens, say. Longer ones wait for their graphs."""

CODES_PER_S = 50
PREFIX_LENGTH = 160


@torch.inference_mode()
def warm_up(models: Models, backend: DecodeBackend, batch_size: int) -> None:
    """Integrate and decode nonsense, in the shapes of common speech behind the longest prompt."""
    started = time.perf_counter()
    config = models.config.s2mel
    frames_per_s = config.preprocess_params.sr / config.preprocess_params.spect_params.hop_length
    prompt_frames = int(config.prompt_s * frames_per_s)
    shapes = list(flow_shapes(models.s2mel, batch_size, prompt_frames, prompt_frames + int(SPEECH_S * frames_per_s)))
    for number, (rows, frames) in enumerate(shapes, start=1):
        logger.info("warming up the flow, %d of %d: %d x %d frames", number, len(shapes), rows, frames)
        _integrate(models, rows, frames, prompt_frames)
    # In the first turn the cache grows to its size, for which graphs of a smaller one are given up.
    for rows in (batch_size, *sorted({1, batch_size}, reverse=True)):
        logger.info("warming up decoding: %d at once", rows)
        _decode(models, backend, rows)
    logger.info("warmed up in %.1f s", time.perf_counter() - started)


def flow_shapes(s2mel: S2Mel, batch_size: int, shortest: int, longest: int) -> Iterator[tuple[int, int]]:
    """Rows and frames to warm up with: the largest come first, so that memory need not grow."""
    if not isinstance(s2mel.solve, FlowGraphs):
        yield from ((rows, longest) for rows in sorted({1, batch_size}, reverse=True))
        return
    sizes = {(rows, filled_up(frames)) for rows in (1, batch_size) for frames in range(shortest + 1, longest + 1)}
    graphed = [(rows, frames) for rows, frames in sizes if rows * frames <= MAX_ROW_FRAMES]
    yield from sorted(graphed, key=lambda size: (size[0] * size[1], size), reverse=True)


def _integrate(models: Models, rows: int, frames: int, prompt_frames: int) -> None:
    config, device = models.config.s2mel, models.device
    mels = config.DiT.in_channels
    models.s2mel.solve(
        models.s2mel.estimator,
        torch.zeros(rows, mels, frames, device=device),
        torch.zeros(rows, frames, config.DiT.content_dim, device=device),
        torch.zeros(rows, mels, prompt_frames, device=device),
        torch.zeros(rows, config.style_encoder.dim, device=device),
        steps=config.steps,
        cfg_rate=config.cfg_rate,
        x_lens=None if rows == 1 else torch.full((rows,), frames, device=device),
    )


def _decode(models: Models, backend: DecodeBackend, rows: int) -> None:
    gpt, device = models.gpt, models.device
    generate(
        backend,
        torch.zeros(rows, PREFIX_LENGTH, models.config.gpt.model_dim, device=device, dtype=gpt.dtype),
        torch.ones(rows, PREFIX_LENGTH, device=device, dtype=torch.bool),
        dataclasses.replace(models.config.sampling, max_mel_tokens=min(SPEECH_S * CODES_PER_S, backend.max_codes)),
        generator=torch.Generator(device).manual_seed(0),
    )
