"""Segments that sound while they are being spoken, by the engine: order, sharing, stopping, and what goes wrong."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indextts.config import SamplingParams
from indextts.engine import Engine
from indextts.errors import Cancelled, ConfigError, SynthesisError
from indextts.types import AudioChunk, ChunkSchedule, SynthesisRequest, VoicePrompt

TEXT = "Hello there, my friend. How are you today? It is raining again. Goodbye, then."
CHUNKS = ChunkSchedule(
    first_codes=8, growth=1.5, max_codes=16, lookahead_frames=6, stand_in_frames=10, context_frames=20, fade_frames=2
)
SAMPLING = SamplingParams(max_mel_tokens=40, num_beams=1)


@pytest.fixture
def ask(recordings: tuple[Path, Path]) -> Callable[..., SynthesisRequest]:
    """A request of several segments in chunks; arguments replace what differs."""

    def make(**changes: Any) -> SynthesisRequest:
        usual = {
            "text": TEXT, "voice": VoicePrompt.from_path(recordings[0]), "sampling": SAMPLING, "seed": 7,
            "max_text_tokens_per_segment": 12, "chunks": CHUNKS, "repair": False,
        }  # fmt: skip
        return SynthesisRequest(**{**usual, **changes})

    return make


def lengths(chunks: list[AudioChunk]) -> dict[int, int]:
    """Samples of each segment without the silence after it."""
    found: dict[int, int] = {}
    for chunk in chunks:
        if not chunk.is_silence:
            found[chunk.segment] = found.get(chunk.segment, 0) + len(chunk.samples)
    return found


@pytest.mark.parametrize("num_beams", [1, 3])
def test_segments_come_in_pieces_and_in_order(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], num_beams: int
) -> None:
    request = ask(sampling=dataclasses.replace(SAMPLING, num_beams=num_beams))
    chunks = list(tiny_engine.stream(request))
    whole = list(tiny_engine.stream(dataclasses.replace(request, chunks=None)))
    assert lengths(chunks) == lengths(whole)  # the codes are the same, so all sounds are equally long
    order = [(chunk.segment, chunk.is_silence) for chunk in chunks]
    assert order == sorted(order) and len(chunks) > len(whole)
    assert [chunk for chunk, _ in itertools.groupby(order)] == [(c.segment, c.is_silence) for c in whole]
    assert all(chunk.samples.dtype == np.int16 and len(chunk.samples) for chunk in chunks)
    first = [chunk for chunk in chunks if chunk.segment == 0 and not chunk.is_silence]
    if num_beams == 1:
        frames = [int(1.72 * codes) for codes in (8, 20)]
        hop = tiny_engine.models.vocoder.hop_samples
        assert len(first[0].samples) == (frames[0] - 6) * hop and len(first[1].samples) == (frames[1] - frames[0]) * hop


def test_sound_comes_before_the_codes_are_known(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    steps: list[int] = []
    hook = tiny_engine.models.gpt.mel_head.register_forward_hook(lambda *_: steps.append(1))
    try:
        stream = tiny_engine.stream(ask())
        next(stream)
        until_first = len(steps)
        for chunk in stream:
            if chunk.is_silence:
                break
    finally:
        hook.remove()
    assert until_first == CHUNKS.first_codes < len(steps) - 10


def test_a_segment_of_one_chunk_is_as_without_chunks(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest]
) -> None:
    request = ask(chunks=dataclasses.replace(CHUNKS, first_codes=50, max_codes=50))
    expected = tiny_engine.synthesize(dataclasses.replace(request, chunks=None))
    assert np.array_equal(tiny_engine.synthesize(request).samples, expected.samples)


def test_callers_in_threads_get_what_they_get_alone(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest]
) -> None:
    """They take turns on one decoder, in the middle of their segments."""
    sampling = [dataclasses.replace(SAMPLING, num_beams=beams) for beams in (1, 2, 1)]
    requests = [ask(seed=seed, sampling=params) for seed, params in enumerate(sampling)]
    requests.append(ask(seed=9, chunks=None, batch_size=3))
    alone = [tiny_engine.synthesize(request).samples for request in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(tiny_engine.synthesize, requests))
    for expected, result in zip(alone, together, strict=True):
        assert np.array_equal(expected, result.samples)


def test_a_short_request_does_not_wait_for_the_end_of_a_long_segment(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest]
) -> None:
    finished: list[str] = []
    under_way = threading.Event()

    def speak_long() -> None:
        # Codes enough for some thirty chunks, in one segment.
        long = ask(max_text_tokens_per_segment=60, sampling=dataclasses.replace(SAMPLING, max_mel_tokens=300))
        chunks = dataclasses.replace(CHUNKS, growth=1.0)
        for _ in tiny_engine.stream(dataclasses.replace(long, chunks=chunks)):
            under_way.set()
        finished.append("long")

    long = threading.Thread(target=speak_long)
    long.start()
    assert under_way.wait(60)
    tiny_engine.synthesize(ask(text="Goodbye.", sampling=dataclasses.replace(SAMPLING, max_mel_tokens=8)))
    finished.append("short")
    long.join()
    assert finished == ["short", "long"]


def test_a_dropped_stream_frees_the_engine(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    expected = tiny_engine.synthesize(ask()).samples
    stream = tiny_engine.stream(ask(seed=1))
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        assert np.array_equal(pool.submit(tiny_engine.synthesize, ask()).result(timeout=60).samples, expected)
    del stream
    assert np.array_equal(tiny_engine.synthesize(ask()).samples, expected)


@pytest.mark.parametrize("calls", [0, 5, 20, 60])
def test_cancelling(tiny_engine: Engine, ask: Callable[..., SynthesisRequest], calls: int) -> None:
    counter = itertools.count()
    with pytest.raises(Cancelled):
        tiny_engine.synthesize(ask(), should_stop=lambda: next(counter) >= calls)
    assert len(tiny_engine.synthesize(ask()).samples)


def spoil_forward(vocoder: torch.nn.Module, call: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A vocoder's ``forward`` whose call of this number gives undefined samples."""
    forward, counter = vocoder.forward, itertools.count()
    return lambda mel: forward(mel) * (math.nan if next(counter) == call else 1)


def test_a_segment_that_has_not_sounded_is_tried_again(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(text="Goodbye.")
    expected = tiny_engine.synthesize(dataclasses.replace(request, seed=8))
    with monkeypatch.context() as patch:
        vocoder = tiny_engine.models.vocoder
        patch.setattr(vocoder, "forward", spoil_forward(vocoder, call=0))
        result = tiny_engine.synthesize(request)
    assert "tried again with seed 8" in result.warnings[0]
    assert np.array_equal(result.samples, expected.samples)


def test_a_segment_that_has_begun_to_sound_is_not(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another attempt would say the rest of something else."""
    expected, heard = tiny_engine.synthesize(ask()).samples, 0
    with monkeypatch.context() as patch, pytest.raises(SynthesisError, match="NaN"):
        vocoder = tiny_engine.models.vocoder
        patch.setattr(vocoder, "forward", spoil_forward(vocoder, call=1))
        for chunk in tiny_engine.stream(ask()):
            heard += len(chunk.samples)
    assert heard > 0
    assert np.array_equal(tiny_engine.synthesize(ask()).samples, expected)


def test_no_memory_in_the_middle_of_a_segment_is_a_clear_error(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, counter = tiny_engine.stages.s2mel.flow, itertools.count()

    def full(*arguments: Any) -> Any:
        if next(counter) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return flow(*arguments)

    with monkeypatch.context() as patch, pytest.raises(SynthesisError, match="cpu is not enough for segment 1"):
        patch.setattr(tiny_engine.stages.s2mel, "flow", full)
        tiny_engine.synthesize(ask())
    assert len(tiny_engine.synthesize(ask()).samples)


def test_what_was_cut_off_is_told_once(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    result = tiny_engine.synthesize(ask(text="Hello.", sampling=dataclasses.replace(SAMPLING, max_mel_tokens=20)))
    assert result.warnings == ("segment 1 was cut off at 20 codes",)
    assert result.timings.total_s >= result.timings.speech_s > 0 < result.timings.vocoder_s


def test_chunks_and_batches_exclude_each_other(ask: Callable[..., SynthesisRequest]) -> None:
    assert ask(batch_size=1).batch_size == 1
    with pytest.raises(ConfigError, match="batch size must be 1, not 4"):
        ask(batch_size=4)


def test_greedy_speech_is_the_same_in_any_batch(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    """The codes, and with the noise of each segment also the sound."""
    greedy = dataclasses.replace(SAMPLING, do_sample=False)
    request = ask(chunks=None, sampling=greedy, batch_size=1)
    alone = tiny_engine.synthesize(request).samples
    assert len(tiny_engine.segment(TEXT, 12)) >= 4
    for size in (2, 4):
        batched = tiny_engine.synthesize(dataclasses.replace(request, batch_size=size)).samples
        assert len(batched) == len(alone) and np.abs(batched.astype(int) - alone).max() <= 2
