"""Decoding through ``deepspeed.init_inference``. The only importer of DeepSpeed, and only when asked."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass

from torch import Tensor

from indextts.accel.ds_config import DeepSpeedConfig, load_ds_config
from indextts.decoding.backend import DecodeStep, EagerBackend
from indextts.decoding.kv_cache import KVCache
from indextts.errors import ConfigError, UnsupportedOption
from indextts.models.gpt import UnifiedVoice

__all__ = ["DeepSpeedBackend", "OpState", "load_ds_config", "op_states"]


@dataclass(frozen=True)
class OpState:
    """One of DeepSpeed's own kernels: whether it was built with the package, and whether it could be built here."""

    name: str
    is_installed: bool
    can_be_built: bool


def op_states() -> tuple[OpState, ...]:
    """The kernels that DeepSpeed has for the accelerator it finds here, as ``ds_report`` tells them.

    Raises:
        UnsupportedOption: DeepSpeed cannot be imported.
    """
    with redirect_stdout(sys.stderr):  # DeepSpeed logs to stdout, where results go
        try:
            from deepspeed.git_version_info import installed_ops
            from deepspeed.ops.op_builder.all_ops import ALL_OPS
            from deepspeed.ops.op_builder.builder import probe_is_compatible
        except Exception as error:  # it probes compilers and drivers as it is imported, and fails in as many ways
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UnsupportedOption(f"DeepSpeed cannot be imported: {reason}") from error
        return tuple(
            OpState(name, bool(installed_ops.get(name)), bool(probe_is_compatible(builder)))
            for name, builder in sorted(ALL_OPS.items())
            if name != "deepspeed_not_implemented"  # stands for what an accelerator lacks
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
