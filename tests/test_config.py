"""The released configuration, strictness, and the ranges of options."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from indextts.config import EngineConfig, ModelConfig, SamplingParams, load_model_config, model_config
from indextts.errors import ConfigError

OFFICIAL = Path(__file__).parent / "data" / "official_config.yaml"
BUNDLED = Path(__file__).parents[1] / "checkpoints" / "nano" / "config.yaml"


def changed(path: str, value: Any) -> dict[str, Any]:
    """The official configuration with the value at a dotted key replaced."""
    raw = yaml.safe_load(OFFICIAL.read_text(encoding="utf-8"))
    del raw["dataset"]
    *parents, last = path.split(".")
    section = raw
    for name in parents:
        section = section[name]
    section[last] = value
    return raw


def test_the_released_file_is_the_default() -> None:
    loaded = load_model_config(OFFICIAL)
    spectrogram = loaded.s2mel.preprocess_params.spect_params
    assert spectrogram.fmax == "None"
    spect_params = dataclasses.replace(spectrogram, fmax=None)
    preprocess = dataclasses.replace(loaded.s2mel.preprocess_params, spect_params=spect_params)
    s2mel = dataclasses.replace(loaded.s2mel, preprocess_params=preprocess)
    assert dataclasses.replace(loaded, s2mel=s2mel) == ModelConfig()


def test_the_bundled_file_loads() -> None:
    assert load_model_config(BUNDLED).gpt.number_text_tokens < ModelConfig().gpt.number_text_tokens


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("gpt.layer", 24, "unknown configuration key: gpt.layer"),
        ("s2mel.DiT.detph", 13, "unknown configuration key: s2mel.DiT.detph"),
        ("gpt.layers", "24", "gpt.layers must be int"),
        ("gpt.layers", True, "gpt.layers must be int"),
        ("emo_num", 73, "emo_num must be a list"),
        ("s2mel", None, "s2mel must be a mapping"),
        ("s2mel.DiT.is_causal", True, "s2mel.DiT.is_causal must be False"),
        ("gpt.condition_type", "gst", "gpt.condition_type must be 'conformer_perceiver'"),
        ("gpt.condition_module.input_layer", "linear", "gpt.condition_module.input_layer must be 'conv2d2'"),
    ],
)
def test_what_does_not_fit_is_named(key: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        model_config(changed(key, value))


@pytest.mark.parametrize("content", ["", "a list: [", "- 1\n", "\x00"])
def test_broken_files_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load_model_config(path)


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
