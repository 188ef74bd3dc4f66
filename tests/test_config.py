"""Defaults and ranges of options."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from indextts.config import EngineConfig, SamplingParams
from indextts.errors import ConfigError


def test_sampling_defaults_of_the_release() -> None:
    expected = dict(
        do_sample=True, top_p=0.8, top_k=30, temperature=0.8, num_beams=3, repetition_penalty=10.0,
        length_penalty=0.0, max_mel_tokens=1500, typical_sampling=False, typical_mass=0.9,
    )  # fmt: skip
    assert dataclasses.asdict(SamplingParams()) == expected


@pytest.mark.parametrize(
    "option",
    [
        {"top_p": 1.01}, {"top_k": -1}, {"top_k": 1.5}, {"temperature": 0.0}, {"temperature": math.nan},
        {"num_beams": 0}, {"num_beams": 11}, {"repetition_penalty": 0}, {"length_penalty": 3}, {"max_mel_tokens": 0},
        {"max_mel_tokens": 1817}, {"top_k": True}, {"top_p": "0.8"}, {"do_sample": "yes"}, {"typical_sampling": 1},
    ],
)  # fmt: skip
def test_sampling_out_of_range_is_named(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=name):
        SamplingParams(**option)


def test_whole_numbers_may_come_as_floats() -> None:
    params = SamplingParams(top_k=20.0, num_beams=2.0)  # type: ignore[arg-type]
    assert (type(params.top_k), params.top_k, type(params.num_beams)) == (int, 20, int)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fp16": True, "bf16": True}, "exclude each other"),
        ({"batch_size": 0}, "batch_size"),
        ({"ds_tp_size": 0}, "ds_tp_size"),
        ({"inference_timeout_s": 29.0}, "timeout"),
        ({"inference_timeout_s": 301.0}, "timeout"),
    ],
)
def test_contradictory_engine_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        EngineConfig(**options)
