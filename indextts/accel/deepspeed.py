"""Decoding through ``deepspeed.init_inference``. The only importer of DeepSpeed, and only when asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from indextts.accel.ds_config import DeepSpeedConfig, load_ds_config
from indextts.cuda_graphs import Replay
from indextts.decoding.backend import PLAIN, DecodeStep, EagerBackend, StepKind
from indextts.decoding.kv_cache import KVCache
from indextts.errors import ConfigError, UnsupportedOption
from indextts.models.gpt import UnifiedVoice
from indextts.models.gpt2 import GPT2, Block

if TYPE_CHECKING:
    from deepspeed.inference.engine import InferenceEngine

__all__ = [
    "DeepSpeedBackend", "DeepSpeedCapture", "OpState", "join_group", "load_ds_config", "op_states", "split_blocks",
]  # fmt: skip

SUMMED_LAYERS = ("attn.c_proj", "mlp.c_proj")
"""The layers of a block that need all of their input: split, each process has a summand of their output."""


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

NOT_INSTALLED = (
    "DeepSpeed is not installed. It comes with this package on Linux alone; there, install the package again, or only "
    "`pip install deepspeed`. On other systems leave the flag out: everything else works without it"
)


class DeepSpeedBackend(EagerBackend):
    """Every decode step goes through a DeepSpeed inference engine that wraps the one ``DecodeStep``."""

    def __init__(self, model: UnifiedVoice, ds_config: DeepSpeedConfig, kind: StepKind = PLAIN) -> None:
        """
        Raises:
            UnsupportedOption: DeepSpeed cannot be imported.
            ConfigError: DeepSpeed refuses the arguments.
        """
        super().__init__(model, kind)
        # The engine is made once, at load, where a failure belongs; each batch brings its own cache (`_use_cache`).
        step = kind.step_type(model, self._new_cache(segments=1, capacity=1))
        self.engine = _init_inference(step, ds_config, model.dtype)

    def _use_cache(self, cache: KVCache) -> None:
        assert isinstance(self.engine.module, DecodeStep)
        self.engine.module.cache = cache

    def run_step(self, codes: Tensor, position: Tensor, slot: Tensor, bias: Tensor) -> Tensor:
        """``DecodeStep`` inside the DeepSpeed engine."""
        return self.engine(codes, position, slot, bias)


class DeepSpeedCapture:
    """Captures decode steps as ``enable_cuda_graph`` does, for `indextts.decoding.graphs.GraphBackend`.

    An engine of DeepSpeed has one graph for one shape. So each shape gets an engine of its own around the whole step of
    model and search; all of them share the weights.
    """

    def __init__(self, model: UnifiedVoice, ds_config: DeepSpeedConfig) -> None:
        """
        Raises:
            UnsupportedOption: DeepSpeed cannot be imported.
        """
        self.model, self.ds_config = model, ds_config
        self.signal = torch.zeros(1, device=model.mel_head.weight.device)  # what an engine is called with
        _deepspeed()

    def __call__(self, step: Callable[[], None], set_back: Callable[[], None]) -> Replay:
        """See `indextts.cuda_graphs.Capture`.

        Raises:
            ConfigError: DeepSpeed refuses the arguments.
        """
        module = _WholeStep(self.model, step, set_back)
        engine = _init_inference(module, self.ds_config, self.model.dtype, enable_cuda_graph=True)
        engine(self.signal)  # warms up, captures, and runs the step once
        module.set_back = None
        set_back()
        return partial(engine, self.signal)


class _WholeStep(nn.Module):
    """A step that works on tensors of its own, as a module of which DeepSpeed sees the weights.

    While there is a ``set_back``, it is called after each step that is not part of a capture: DeepSpeed warms up by
    running the module several times, and each of these runs has to find the place that the first one found.
    """

    def __init__(self, model: UnifiedVoice, step: Callable[[], None], set_back: Callable[[], None]) -> None:
        super().__init__()
        self.model, self.step = model, step
        self.set_back: Callable[[], None] | None = set_back

    def forward(self, signal: Tensor) -> Tensor:
        self.step()
        if self.set_back is not None and not (signal.is_cuda and torch.cuda.is_current_stream_capturing()):
            self.set_back()
        return signal


def join_group(device_type: str, backend: str) -> None:
    """Let DeepSpeed use the process group of ``torch.distributed``.

    Raises:
        UnsupportedOption: DeepSpeed cannot be imported, or works on another kind of device than ``device_type``.
    """
    deepspeed = _deepspeed()
    works_on = deepspeed.accelerator.get_accelerator().device_name()
    if works_on != device_type:
        raise UnsupportedOption(
            f"--ds-tp-size: DeepSpeed works on {works_on} here, and the model is on {device_type}: set "
            f"DS_ACCELERATOR={device_type} in the environment"
        )
    # DeepSpeed would compile an all-reduce in shared memory, which has crashed (SIGSEGV) on machines without AVX-512.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=backend)


class _WholeGroup:
    """What DeepSpeed asks for the processes to split a model over: all of them."""

    def get_model_parallel_group(self) -> Any:
        return torch.distributed.group.WORLD


def split_blocks(trunk: GPT2, tp_size: int, ds_config: DeepSpeedConfig) -> InferenceEngine:
    """Leave this process its share of each block of ``trunk``, whose layers are ``nn.Linear``; after `join_group`.

    Raises:
        ConfigError: DeepSpeed refuses the settings.
    """
    group = _WholeGroup()
    # By default, it would cut at multiples of 64 wherever these are.
    tensor_parallel = {
        "tp_size": tp_size, "tp_grain_size": 1, "mpu": group, "tp_group": group.get_model_parallel_group(),
    }  # fmt: skip
    dtype = next(trunk.parameters()).dtype
    return _init_inference(
        trunk,
        ds_config,
        dtype,
        tensor_parallel=tensor_parallel,
        injection_policy={Block: SUMMED_LAYERS},
        keep_module_on_host=False,
    )


def _deepspeed() -> Any:
    with redirect_stdout(sys.stderr):  # DeepSpeed logs to what stdout is as it is imported, and there results go
        try:
            import deepspeed
        except ModuleNotFoundError as error:
            if error.name != "deepspeed":
                raise UnsupportedOption(f"--deepspeed: DeepSpeed cannot be imported: {error}") from error
            raise UnsupportedOption(f"--deepspeed: {NOT_INSTALLED}") from error
        except ImportError as error:
            raise UnsupportedOption(f"--deepspeed: DeepSpeed cannot be imported: {error}") from error
    return deepspeed


def _init_inference(
    module: nn.Module, ds_config: DeepSpeedConfig, dtype: torch.dtype, **arguments: Any
) -> InferenceEngine:
    # DeepSpeed shall not move the weights: they are where they belong, and some may rest in main memory.
    config = {**ds_config.arguments(), "dtype": dtype, "keep_module_on_host": True, **arguments}
    try:
        return _deepspeed().init_inference(module, config=config)
    except ValueError as error:  # pydantic's errors, which have several lines, are among them
        reason = " ".join(str(error).split())
        raise ConfigError(f"{ds_config.path}: DeepSpeed refuses these settings: {reason}") from error
