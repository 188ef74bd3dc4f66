"""Decoding through ``deepspeed.init_inference``. The only importer of DeepSpeed, and only when asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from indextts.decoding.backend import DecodeStep, EagerBackend
from indextts.decoding.kv_cache import KVCache
from indextts.errors import ConfigError, UnsupportedOption
from indextts.models.gpt import UnifiedVoice

DEFAULT_DS_CONFIG = Path(__file__).resolve().parents[2] / "ds_config.json"
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "replace_with_kernel_inject": (False,),
    "enable_cuda_graph": (False,),
}
"""What this version passes on to DeepSpeed; the precision follows ``--fp16`` and ``--bf16``."""


def load_ds_config(path: Path | None) -> dict[str, Any]:
    """Read a DeepSpeed inference configuration: JSON that may hold ``//`` and ``/* */`` comments.

    Raises:
        ConfigError: unreadable, not JSON, or a key or value that decoding here cannot use, by name.
    """
    import json5

    path = path or DEFAULT_DS_CONFIG
    try:
        config = json5.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the DeepSpeed configuration {path}: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} is not a JSON object")
    for key, value in config.items():
        if key not in SUPPORTED:
            raise ConfigError(f"{path}: the key {key!r} is not supported; supported are {', '.join(SUPPORTED)}")
        if value not in SUPPORTED[key]:
            allowed = " or ".join(map(str, SUPPORTED[key])).lower()
            raise ConfigError(f"{path}: {key} must be {allowed} in this version, not {value!r}")
    return config


class DeepSpeedBackend(EagerBackend):
    """Every decode step goes through a DeepSpeed inference engine that wraps the one ``DecodeStep``."""

    def __init__(self, model: UnifiedVoice, ds_config: dict[str, Any]) -> None:
        super().__init__(model)
        try:
            import deepspeed
        except ImportError as error:
            raise UnsupportedOption(f"--deepspeed: DeepSpeed cannot be imported: {error}") from error
        # The engine is made once, at load, where a failure belongs; each batch brings its own cache (`_use_cache`).
        step = DecodeStep(model, self._new_cache(segments=1, capacity=1))
        self.engine = deepspeed.init_inference(step, config={**ds_config, "dtype": model.dtype})

    def _use_cache(self, cache: KVCache) -> None:
        assert isinstance(self.engine.module, DecodeStep)
        self.engine.module.cache = cache

    def run_step(self, codes: Tensor, position: Tensor, slots: Tensor, bias: Tensor) -> Tensor:
        """``DecodeStep`` inside the DeepSpeed engine."""
        return self.engine(codes, position, slots, bias)
