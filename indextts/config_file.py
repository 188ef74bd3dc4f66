"""Reading a model's ``config.yaml``, strictly: every key and every type is checked, and named where it is wrong.

Unknown keys are errors, except those that the released file carries and inference never reads, which are listed here
by name.
"""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from indextts.config import ModelConfig
from indextts.errors import ConfigError

# Keys of the released file that inference does not read. At the top level, "dataset" stands for its whole section.
UNUSED_KEYS: dict[str, frozenset[str]] = {
    "": frozenset({"dataset"}),
    "gpt": frozenset({"mel_length_compression"}),
    "s2mel": frozenset({"reg_loss_type"}),
    "s2mel.length_regulator": frozenset({"n_codebooks", "quantizer_dropout", "n_f0_bins"}),
    "s2mel.DiT": frozenset(
        {"class_dropout_prob", "block_size", "target", "content_type", "n_f0_bins", "content_codebooks"}
    ),
    "s2mel.wavenet": frozenset({"p_dropout"}),
    "vocoder": frozenset({"type", "name"}),
}

# Keys that choose between kinds of network, of which only the released kind is built: any other value is an error.
RELEASED_KIND: dict[str, dict[str, str | bool]] = {
    "gpt": {"use_mel_codes_as_input": True, "train_solo_embeddings": False, "condition_type": "conformer_perceiver"},
    "gpt.condition_module": {"input_layer": "conv2d2"},
    "gpt.emo_condition_module": {"input_layer": "conv2d2"},
    "s2mel": {"dit_type": "DiT"},
    "s2mel.length_regulator": {"is_discrete": False, "vector_quantize": False, "f0_condition": False},
    "s2mel.DiT": {
        "style_condition": True, "final_layer_type": "wavenet", "f0_condition": False, "is_causal": False,
        "long_skip_connection": True, "zero_prompt_speech_token": False, "time_as_token": False,
        "style_as_token": False, "uvit_skip_connection": True, "add_resblock_in_transformer": False,
    },
    "s2mel.wavenet": {"style_condition": True},
    "vocoder": {"resblock": "1", "activation": "snakebeta", "snake_logscale": True},
}  # fmt: skip


MAX_FILE_BYTES = 2**16
MAX_SIZE, MAX_LAYERS, MAX_LIST, MAX_NAME = 1_000_000, 1000, 64, 255
LAYER_COUNTS = frozenset({
    "layers", "num_blocks", "perceiver_depth", "num_hidden_layers", "output_layer", "vocos_num_layers", "depth",
    "num_layers",
})  # fmt: skip
"""Sizes of which each unit is a network to build, so that a mistyped one would take hours."""

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def load_model_config(path: str | Path) -> ModelConfig:
    """Read a ``config.yaml``.

    Raises:
        ConfigError: unreadable file, unknown key, or a value of the wrong type, named by its full key.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigError(f"the model configuration {path} is larger than {MAX_FILE_BYTES:,} bytes")
        raw = yaml.safe_load(content.decode("utf-8"))
    except RecursionError as error:
        raise ConfigError(f"cannot read the model configuration {path}: nested too deeply") from error
    except OSError as error:
        raise ConfigError(f"cannot read the model configuration {path}: {error.strerror}") from error
    except (ValueError, TypeError, LookupError, AttributeError, yaml.YAMLError) as error:  # PyYAML on bad scalars
        raise ConfigError(f"cannot read the model configuration {path}: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} is not a mapping of configuration keys")
    raw = dict(raw)
    dataset = raw.pop("dataset", None)
    if isinstance(dataset, dict) and "bpe_model" in dataset:
        raw.setdefault("bpe_model", dataset["bpe_model"])
    return model_config(raw)


def model_config(raw: dict[str, Any]) -> ModelConfig:
    """Build a ``ModelConfig`` from a plain mapping, checking every key and type."""
    return build_dataclass(ModelConfig, raw, "")


def build_dataclass(cls: Any, raw: Any, where: str) -> Any:
    """Fill the dataclass ``cls`` from a mapping, recursively; ``where`` is the dotted key for messages."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{where or 'configuration'} must be a mapping, not {shown(raw)}")
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    kinds = RELEASED_KIND.get(where, {})
    unknown = set(raw) - known - set(kinds) - UNUSED_KEYS.get(where, frozenset())
    if unknown:
        keys = ", ".join(f"{where}.{k}" if where else k for k in sorted(map(str, unknown)))
        raise ConfigError(f"unknown configuration key: {keys[:300]}")
    for name, built in kinds.items():
        if raw.get(name, built) != built:
            raise ConfigError(f"{where}.{name} must be {built!r}, the only kind built here, not {shown(raw[name])}")
    values = {}
    for name in known & set(raw):
        key = f"{where}.{name}" if where else name
        values[name] = _convert(hints[name], raw[name], key)
    return cls(**values)


def _convert(kind: Any, value: Any, key: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return build_dataclass(kind, value, key)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{key} must be a list, not {shown(value)}")
        if len(value) > MAX_LIST:
            raise ConfigError(f"{key} must have at most {MAX_LIST} items, not {len(value)}")
        return tuple(_convert(args[0], item, key) for item in value)
    if origin in (typing.Union, types.UnionType):
        for option in args:
            if value is None and option is type(None):
                return None
            try:
                return _convert(option, value, key)
            except ConfigError:
                continue
        raise ConfigError(f"{key} cannot be {shown(value)}")
    wanted = (int, float) if kind is float else kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{key} must be {kind.__name__}, not {shown(value)}")
    if kind is int:
        most = MAX_LAYERS if key.rpartition(".")[2] in LAYER_COUNTS else MAX_SIZE
        if not 0 <= value <= most:
            raise ConfigError(f"{key} must be from 0 to {most:,}, not {shown(value)}")
    elif kind is float and not -MAX_SIZE <= value <= MAX_SIZE:  # which no NaN is
        raise ConfigError(f"{key} must be a number of at most {MAX_SIZE:,}, not {shown(value)}")
    elif isinstance(value, str) and (len(value) > MAX_NAME or not value.isprintable()):
        raise ConfigError(f"{key} must be a name of at most {MAX_NAME} printable characters, not {shown(value)}")
    return float(value) if kind is float else value


def shown(value: object) -> str:
    """``value`` for a message, short whatever it is: aliases make a small YAML file mean terabytes."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python does not write out numbers of thousands of digits
        return f"such a large {type(value).__name__}"
