"""Reading ``config.yaml``: the released one, the bundled one, and mistakes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from indextts.config import ModelConfig
from indextts.config_file import load_model_config, model_config
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
