"""The only reader of the acceleration options: applies what the machine can do and reports what it cannot."""

from __future__ import annotations

import dataclasses
import logging
from functools import partial

import torch

from indextts.accel import offload
from indextts.accel.ds_config import DeepSpeedConfig, check_tensor_parallel, load_ds_config
from indextts.accel.precision import HALVED, apply_precision, asked_precision
from indextts.config import EngineConfig
from indextts.decoding.backend import PLAIN, DecodeBackend, EagerBackend, StepKind
from indextts.errors import UnsupportedOption
from indextts.loading import Convert, Models
from indextts.types import AccelerationEntry, AccelerationReport

logger = logging.getLogger(__name__)

NEEDS_CUDA = "needs a CUDA device"
SPLITTING = ("cuda", "cpu")
"""The kinds of devices over which a model can be split."""

NO_SPLIT = "needs CUDA devices, or the CPU"
NO_SPLIT_GRAPHS = "DeepSpeed has none for a model that is split over several processes"
INJECTED_ONLY = "acts on DeepSpeed's injected kernels, which decoding here cannot use"


def resolve_device(name: str | None) -> torch.device:
    """The device called ``name``, or the best there is: cuda, xpu, mps, cpu.

    Raises:
        UnsupportedOption: the device was named and this machine does not have it.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        if torch.xpu.is_available():
            return torch.device("xpu", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UnsupportedOption(f"the device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def conversion(config: EngineConfig, device: torch.device) -> Convert | None:
    """What has to be done to the weights of each network before they go to ``device``.

    Raises:
        ConfigError: the DeepSpeed configuration, or it together with the flags, is wrong.
    """
    if config.deepspeed or config.ds_tp_size > 1:
        config = load_ds_config(config.ds_config).merged_into(config)
    dtype = asked_precision(config) if device.type == "cuda" else None
    return None if dtype is None else partial(apply_precision, dtype=dtype)


def accelerate(models: Models, config: EngineConfig) -> tuple[DecodeBackend, AccelerationReport]:
    """Apply the options of ``config`` to loaded models.

    Returns:
        What decoding runs on, and the report of what was asked, what runs and why.

    Raises:
        ConfigError: the DeepSpeed configuration, or it together with the flags, is wrong.
        UnsupportedOption: with ``strict``, the first option that cannot be honoured; always, a broken DeepSpeed.
    """
    on_cuda = models.device.type == "cuda"
    ds_config = load_ds_config(config.ds_config) if config.deepspeed or config.ds_tp_size > 1 else None
    if ds_config is not None:
        config = ds_config.merged_into(config)
    if config.ds_tp_size > 1:
        gpus = torch.cuda.device_count() if on_cuda else 0
        check_tensor_parallel(config.ds_tp_size, models.config.gpt.heads, gpus, str(models.device))
    tp_size = config.ds_tp_size if models.device.type in SPLITTING else 1
    entries = [_precision(models, config, on_cuda)]
    offloads = config.cpu_offload and offload.can_offload(models.device)
    if offloads:
        entries.append(_offload(models, "on"))
    graphed = on_cuda and tp_size == 1 and (config.deepspeed if config.cuda_graph is None else config.cuda_graph)
    fused = config.cuda_kernel and on_cuda
    kernels = _fuse(models, tp_size, config.compile) if fused else None
    backend = _backend(models, ds_config, graphed, tp_size, kernels)
    if ds_config is not None:
        asked = "on" if config.deepspeed else "with ds-tp-size"
        entries.append(AccelerationEntry("deepspeed", asked, "decoding through deepspeed.init_inference"))
        entries += _without_effect(ds_config)
    else:
        entries.append(AccelerationEntry("deepspeed", "off", "off"))
    if graphed:
        asked = "on" if config.cuda_graph else "with deepspeed"
        own = "decoding and flow by CUDA graphs"
        how = "decoding by DeepSpeed's CUDA graphs, flow by PyTorch's" if config.deepspeed else own
        entries.append(AccelerationEntry("cuda-graph", asked, how))
        from indextts.accel.flow_graphs import apply_flow_graphs

        apply_flow_graphs(models.s2mel, config.compile)
    if tp_size > 1:
        how = f"the language model's blocks over {tp_size} processes, without CUDA graphs"
        entries.append(AccelerationEntry("ds-tp-size", str(tp_size), how))
    if kernels is not None:
        entries.append(AccelerationEntry("cuda-kernel", "on", kernels.running))
    if config.compile:
        entries.append(_compile(models))
    for option, asked, reason in (
        ("cuda-kernel", config.cuda_kernel and not fused, NEEDS_CUDA),
        ("cuda-graph", config.cuda_graph and not graphed, NO_SPLIT_GRAPHS if tp_size > 1 else NEEDS_CUDA),
        ("cpu-offload", config.cpu_offload and not offloads, NEEDS_CUDA),
        ("ds-tp-size", config.ds_tp_size > tp_size, NO_SPLIT),
    ):
        if asked:
            entries.append(AccelerationEntry(option, "on", "off", reason))
    report = AccelerationReport(str(models.device), tuple(entries))
    refused = [entry for entry in entries if not entry.honoured]
    if refused and config.strict:
        raise UnsupportedOption("; ".join(f"--{entry.option}: {entry.reason}" for entry in refused))
    return backend, report


def relieve(models: Models, report: AccelerationReport) -> AccelerationReport | None:
    """Switch offload on in an engine that is at work, because its device has no memory left.

    Returns:
        The report from now on; None if nothing could be gained.
    """
    is_on = any(entry.option == "cpu-offload" and entry.honoured for entry in report.entries)
    if is_on or not offload.can_offload(models.device):
        return None
    entry = _offload(models, "when the memory was full")
    return dataclasses.replace(report, entries=(*report.entries, entry))


def _offload(models: Models, asked: str) -> AccelerationEntry:
    offload.apply_offload(models)
    return AccelerationEntry("cpu-offload", asked, "networks that listen to recordings rest in main memory")


@dataclasses.dataclass(frozen=True)
class _OwnKernels:
    """What is fused: a kind of decode step, and all of it in words."""

    decoding: StepKind
    running: str


def _fuse(models: Models, tp_size: int, compiles: bool) -> _OwnKernels:
    from indextts.accel import fused_decode, fused_flow
    from indextts.accel.fused_snake import apply_fused_snake

    apply_fused_snake(models.vocoder)
    fused, plain, decoding = ["activation of the vocoder"], [], PLAIN
    reason = "it is split over several processes" if tp_size > 1 else fused_decode.cannot_fuse(models.gpt)
    if reason is None:
        fused_decode.apply_fused_decode(models.gpt)
        decoding = fused_decode.FUSED
        fused.append("decoding")
    else:
        plain.append(f"decoding as it comes, as {reason}")
    reason = "it is compiled" if compiles else fused_flow.cannot_fuse(models.s2mel.estimator)
    if reason is None:
        fused_flow.apply_fused_flow(models.s2mel.estimator)
        fused.append("layers of the flow")
    else:
        plain.append(f"the flow as it comes, as {reason}")
    return _OwnKernels(decoding, "; ".join(["fused " + ", ".join(fused), *plain]))


def _backend(
    models: Models, ds_config: DeepSpeedConfig | None, graphed: bool, tp_size: int, kernels: _OwnKernels | None
) -> DecodeBackend:
    """What decoding runs on: as it comes or as graphs, inside DeepSpeed or not, in one process or several."""
    kind = PLAIN if kernels is None else kernels.decoding
    if ds_config is not None and tp_size > 1:
        from indextts.accel.tensor_parallel import TensorParallelBackend

        return TensorParallelBackend(models.gpt, tp_size, ds_config)
    if ds_config is None and not graphed:
        if models.device.type == "cpu":
            from indextts.accel import half_weights

            kind = half_weights.step_kind(models.gpt) or kind
        return EagerBackend(models.gpt, kind)
    if ds_config is None:
        from indextts.decoding.graphs import GraphBackend

        return GraphBackend(models.gpt, None, kind)
    from indextts.accel.deepspeed import DeepSpeedBackend, DeepSpeedCapture

    if not graphed:
        return DeepSpeedBackend(models.gpt, ds_config, kind)
    from indextts.decoding.graphs import GraphBackend

    return GraphBackend(models.gpt, DeepSpeedCapture(models.gpt, ds_config), kind)


def _compile(models: Models) -> AccelerationEntry:
    from indextts.accel.compile import apply_compile

    try:
        apply_compile(models.s2mel.estimator)
    except UnsupportedOption as error:
        return AccelerationEntry("compile", "on", "off", str(error).removeprefix("--compile: "))
    return AccelerationEntry("compile", "on", "layers of the flow by torch.compile")


def _without_effect(ds_config: DeepSpeedConfig) -> list[AccelerationEntry]:
    """Entries for what DeepSpeed is told and does not act upon. Training's keys are only named in the log."""
    if ds_config.training_only:
        named = ", ".join(ds_config.training_only)
        logger.warning("%s: these keys are for training and mean nothing here: %s", ds_config.path, named)
    entries = []
    if ds_config.max_out_tokens is not None:
        asked = str(ds_config.max_out_tokens)
        entries.append(AccelerationEntry("ds-config max_out_tokens", asked, "no effect", INJECTED_ONLY))
    if ds_config.quant is not None and ds_config.quant.get("enabled", True):
        entries.append(AccelerationEntry("ds-config quant", "on", "off", INJECTED_ONLY))
    return entries


def _precision(models: Models, config: EngineConfig, on_cuda: bool) -> AccelerationEntry:
    """Half precision, for what `conversion` has not converted yet."""
    dtype = asked_precision(config)
    if dtype is None:
        return AccelerationEntry("precision", "fp32", "fp32")
    option = "fp16" if config.fp16 else "bf16"
    if not on_cuda:
        return AccelerationEntry(option, "on", "fp32", NEEDS_CUDA)
    for name, network in models.networks().items():
        apply_precision(name, network, dtype)
    return AccelerationEntry(option, "on", HALVED.format(option))
