"""Decoding through ``deepspeed.init_inference``. The only importer of DeepSpeed, and only when asked."""

from __future__ import annotations

from torch import Tensor

from indextts.accel.ds_config import DeepSpeedConfig, load_ds_config
from indextts.decoding.backend import DecodeStep, EagerBackend
from indextts.decoding.kv_cache import KVCache
from indextts.errors import ConfigError, UnsupportedOption
from indextts.models.gpt import UnifiedVoice

__all__ = ["DeepSpeedBackend", "load_ds_config"]

NOT_INSTALLED = (
    "DeepSpeed is not installed. It comes with this package on Linux alone; there, install the package again, or only "
    "`pip install deepspeed`. On other systems leave the flag out: everything else works without it"
)


class DeepSpeedBackend(EagerBackend):
    """Every decode step goes through a DeepSpeed inference engine that wraps the one ``DecodeStep``."""

    def __init__(self, model: UnifiedVoice, ds_config: DeepSpeedConfig) -> None:
        """
        Raises:
            UnsupportedOption: DeepSpeed cannot be imported.
            ConfigError: DeepSpeed refuses the arguments.
        """
        super().__init__(model)
        try:
            import deepspeed
        except ModuleNotFoundError as error:
            if error.name != "deepspeed":
                raise UnsupportedOption(f"--deepspeed: DeepSpeed cannot be imported: {error}") from error
            raise UnsupportedOption(f"--deepspeed: {NOT_INSTALLED}") from error
        except ImportError as error:
            raise UnsupportedOption(f"--deepspeed: DeepSpeed cannot be imported: {error}") from error
        # The engine is made once, at load, where a failure belongs; each batch brings its own cache (`_use_cache`).
        step = DecodeStep(model, self._new_cache(segments=1, capacity=1))
        try:
            self.engine = deepspeed.init_inference(step, config={**ds_config.arguments(), "dtype": model.dtype})
        except ValueError as error:  # pydantic's errors, which have several lines, are among them
            reason = " ".join(str(error).split())
            raise ConfigError(f"{ds_config.path}: DeepSpeed refuses these settings: {reason}") from error

    def _use_cache(self, cache: KVCache) -> None:
        assert isinstance(self.engine.module, DecodeStep)
        self.engine.module.cache = cache

    def run_step(self, codes: Tensor, position: Tensor, slots: Tensor, bias: Tensor) -> Tensor:
        """``DecodeStep`` inside the DeepSpeed engine."""
        return self.engine(codes, position, slots, bias)
