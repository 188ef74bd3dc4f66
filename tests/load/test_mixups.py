"""The load generator's own judgement: it must find the one recording that is somebody else's."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from indextts.encoding import encode
from tests.load.mixups import Recording, mixed_up, repeat_alone

RATE_HZ = 22050


def spoken(seed: int, samples: int = 500) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9000, 9000, samples, np.int16)


def recording(seed: int, samples: np.ndarray) -> Recording:
    return Recording({"seed": seed, "voice": "a"}, samples, RATE_HZ)


@pytest.fixture
def http() -> httpx.Client:
    """A server that gives each seed its own sound, always the same."""

    def answer(request: httpx.Request) -> httpx.Response:
        seed = int(request.content.split(b'"seed":')[1].split(b",")[0])
        return httpx.Response(200, content=encode(spoken(seed), RATE_HZ, "wav"))

    return httpx.Client(base_url="http://server", transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("samples", "same"),
    [(spoken(1), True), (spoken(1) + np.int16(1), True), (spoken(1) + np.int16(2), False), (spoken(1)[:-1], False)],
)
def test_what_is_the_same(samples: Any, same: bool) -> None:
    assert recording(1, spoken(1)).is_the_same_as(recording(1, samples)) == same


def test_a_swapped_recording_is_found(http: httpx.Client) -> None:
    recordings = [recording(seed, spoken(seed)) for seed in range(40)]
    recordings[5] = recording(5, spoken(6))
    repeated = repeat_alone(http, recordings, recordings[:3], 37)
    assert len(repeated) == 40 and mixed_up(repeated) == [recordings[5]]
    repeated = repeat_alone(http, recordings, [recordings[5]], 4)
    assert len({one.body["seed"] for one, _ in repeated}) == 5 and mixed_up(repeated) == [recordings[5]]
