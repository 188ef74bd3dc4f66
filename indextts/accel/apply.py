"""The only reader of the acceleration options: applies what the machine can do and reports what it cannot."""

from __future__ import annotations

import logging

import torch

from indextts.accel.ds_config import DeepSpeedConfig, check_tensor_parallel, load_ds_config
from indextts.config import EngineConfig
from indextts.decoding.backend import DecodeBackend, EagerBackend
from indextts.errors import UnsupportedOption
from indextts.loading import Models
from indextts.types import AccelerationEntry, AccelerationReport

logger = logging.getLogger(__name__)

NEEDS_CUDA = "needs a CUDA device"
NOT_YET = "not part of this version"
NO_TENSOR_PARALLEL = "tensor parallelism is not part of this version: one device runs the whole model"
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


def accelerate(models: Models, config: EngineConfig) -> tuple[DecodeBackend, AccelerationReport]:
    """Apply the options of ``config`` to loaded models.

    Returns:
        What decoding runs on, and the report of what was asked, what runs and why.

    Raises:
        ConfigError: the DeepSpeed configuration, or it together with the flags, is wrong.
        UnsupportedOption: with ``strict``, the first option that cannot be honoured; always, a broken DeepSpeed.
    """
    on_cuda = models.device.type == "cuda"
    ds_config = load_ds_config(config.ds_config) if config.deepspeed else None
    if ds_config is not None:
        config = ds_config.merged_into(config)
    if config.ds_tp_size > 1:
        check_tensor_parallel(config.ds_tp_size, models.config.gpt.heads, torch.cuda.device_count() if on_cuda else 0)
    entries = [_precision(models, config, on_cuda)]
    graphed = on_cuda and (config.deepspeed if config.cuda_graph is None else config.cuda_graph)
    backend = _backend(models, ds_config, graphed)
    if ds_config is not None:
        entries.append(AccelerationEntry("deepspeed", "on", "decoding through deepspeed.init_inference"))
        entries += _without_effect(ds_config)
    else:
        entries.append(AccelerationEntry("deepspeed", "off", "off"))
    if graphed:
        asked = "on" if config.cuda_graph else "with deepspeed"
        whose = "DeepSpeed's CUDA graphs" if config.deepspeed else "CUDA graphs"
        entries.append(AccelerationEntry("cuda-graph", asked, f"decoding by {whose}"))
    fused = config.cuda_kernel and on_cuda
    if fused:
        from indextts.accel.fused_snake import apply_fused_snake

        apply_fused_snake(models.vocoder)
        entries.append(AccelerationEntry("cuda-kernel", "on", "fused activation of the vocoder"))
    missing = NOT_YET if on_cuda else NEEDS_CUDA
    for option, asked, reason in (
        ("cuda-kernel", config.cuda_kernel and not fused, missing),
        ("cuda-graph", config.cuda_graph and not graphed, NEEDS_CUDA),
        ("cpu-offload", config.cpu_offload, missing),
        ("ds-tp-size", config.ds_tp_size > 1, NO_TENSOR_PARALLEL),
    ):
        if asked:
            entries.append(AccelerationEntry(option, "on", "off", reason))
    report = AccelerationReport(str(models.device), tuple(entries))
    refused = [entry for entry in entries if not entry.honoured]
    if refused and config.strict:
        raise UnsupportedOption("; ".join(f"--{entry.option}: {entry.reason}" for entry in refused))
    return backend, report


def _backend(models: Models, ds_config: DeepSpeedConfig | None, graphed: bool) -> DecodeBackend:
    """What decoding runs on: as it comes or as graphs, inside DeepSpeed or not."""
    if ds_config is None and not graphed:
        return EagerBackend(models.gpt)
    if ds_config is None:
        from indextts.decoding.graphs import GraphBackend

        return GraphBackend(models.gpt)
    from indextts.accel.deepspeed import DeepSpeedBackend, DeepSpeedCapture

    if not graphed:
        return DeepSpeedBackend(models.gpt, ds_config)
    from indextts.decoding.graphs import GraphBackend

    return GraphBackend(models.gpt, DeepSpeedCapture(models.gpt, ds_config))


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
    """Half precision for the language model, which is what official inference halves; the rest stays float32."""
    option = "fp16" if config.fp16 else "bf16" if config.bf16 else None
    if option is None:
        return AccelerationEntry("precision", "fp32", "fp32")
    if not on_cuda:
        return AccelerationEntry(option, "on", "fp32", NEEDS_CUDA)
    models.gpt.to(torch.float16 if config.fp16 else torch.bfloat16)
    return AccelerationEntry(option, "on", f"{option} language model, float32 elsewhere")
