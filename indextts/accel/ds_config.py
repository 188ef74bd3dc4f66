"""``--ds-config``: a DeepSpeed configuration file, and what of it means something for inference here.

Files for DeepSpeed are mostly written for training, and DeepSpeed's own inference configuration refuses their keys. So
the file is translated: keys with a meaning become a `DeepSpeedConfig`, keys that matter to training alone are named in
one line of the log, and every other key is an error. Needs neither DeepSpeed nor the model.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indextts.checkpoints import BUNDLED_DIR
from indextts.config import EngineConfig
from indextts.config_file import load_model_config
from indextts.errors import ConfigError
from indextts.resources import DS_CONFIG as DEFAULT_DS_CONFIG

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 65_536
MAX_COUNT = 1_000_000

DTYPES = {
    "fp16": ("fp16", "float16", "half", "torch.float16", "torch.half"),
    "bf16": ("bf16", "bfloat16", "torch.bfloat16"),
    "fp32": ("fp32", "float32", "float", "torch.float32", "torch.float"),
}
"""The precisions and how DeepSpeed lets one write them. Its int8 is for injected kernels."""

INFERENCE_KEYS = (
    "dtype", "tensor_parallel", "tp", "mp_size", "enable_cuda_graph", "replace_with_kernel_inject", "kernel_inject",
    "max_out_tokens", "max_tokens", "quant", "fp16", "bf16", "bfloat16",
)  # fmt: skip
QUANT_KEYS = ("enabled", "activation", "weight", "qkv")

TRAINING_KEYS = frozenset({
    "activation_checkpointing", "aio", "amp", "autotuning", "comet", "comms_logger", "communication_data_type",
    "compile", "compression_training", "csv_monitor", "curriculum_learning", "data_efficiency", "data_types",
    "dataloader_drop_last", "disable_allgather", "disable_python_gc", "dump_state", "eigenvalue", "elasticity",
    "flops_profiler", "gradient_accumulation_steps", "gradient_allreduce_op", "gradient_clipping",
    "gradient_predivide_factor", "hybrid_engine", "managed_gradient_accumulation", "memory_breakdown", "nebula",
    "optimizer", "pipeline", "prescale_gradients", "progressive_layer_drop", "scheduler",
    "seq_parallel_communication_data_type", "sparse_attention", "sparse_gradients", "steps_per_print",
    "tensorboard", "timers", "torch_autocast", "train_batch_size", "train_micro_batch_size_per_gpu",
    "wall_clock_breakdown", "wandb", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer",
    "zero_optimization",
})  # fmt: skip
TRAINING_PRECISION_KEYS = frozenset({
    "auto_cast", "loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "consecutive_hysteresis",
    "min_loss_scale", "fp16_master_weights_and_grads", "immediate_grad_update", "check_grad_overflow",
    "bf16_master_weights_and_grads", "bf16_optimizer_states",
})  # fmt: skip
"""Inside ``fp16`` and ``bf16``, beside ``enabled``: how gradients are kept from overflowing."""

NO_KERNEL_INJECTION = (
    "DeepSpeed's kernels keep one cache that follows neither beams nor the padding of a batch, and replace only the "
    "blocks of architectures they know, such as transformers' GPT-2; decoding here has beams, padded batches and its "
    "own blocks. It would need a decoder of such blocks that speaks one segment at a time with num_beams 1; set it "
    "to false"
)


@dataclass(frozen=True)
class DeepSpeedConfig:
    """What a file says about inference. None: it says nothing, so the flags decide.

    Attributes:
        fp16: Half precision, by ``dtype`` or ``fp16.enabled``.
        bf16: The same for bfloat16. ``dtype: fp32`` makes both false.
        ds_tp_size: GPUs to split the model over.
        cuda_graph: ``enable_cuda_graph``.
        max_out_tokens: Size of the cache of injected kernels.
        quant: Quantisation of injected kernels, as DeepSpeed takes it.
        training_only: The keys of the file that mean nothing for inference.
        origin: For each of the above that the file speaks of, by what key and value.
    """

    path: Path
    fp16: bool | None = None
    bf16: bool | None = None
    ds_tp_size: int | None = None
    cuda_graph: bool | None = None
    max_out_tokens: int | None = None
    quant: dict[str, Any] | None = None
    training_only: tuple[str, ...] = ()
    origin: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def merged_into(self, config: EngineConfig) -> EngineConfig:
        """``config`` with what the file asks for beyond the flags.

        Raises:
            ConfigError: a flag asks for what the file rules out.
        """
        for option in ("fp16", "bf16", "cuda_graph"):
            if getattr(config, option) and getattr(self, option) is False:
                raise self._contradiction(f"--{option.replace('_', '-')}", option)
        if config.cuda_graph is False and self.cuda_graph:
            raise self._contradiction("--cuda-graph false", "cuda_graph")
        if self.ds_tp_size is not None and config.ds_tp_size not in (1, self.ds_tp_size):
            raise self._contradiction(f"--ds-tp-size {config.ds_tp_size}", "ds_tp_size")
        return dataclasses.replace(
            config,
            fp16=config.fp16 or bool(self.fp16),
            bf16=config.bf16 or bool(self.bf16),
            cuda_graph=self.cuda_graph if config.cuda_graph is None else config.cuda_graph,
            ds_tp_size=self.ds_tp_size or config.ds_tp_size,
        )

    def _contradiction(self, flag: str, option: str) -> ConfigError:
        return ConfigError(f"{flag} contradicts {self.path}, where {self.origin[option]}: drop or change one of them")

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``deepspeed.init_inference``, but for the precision, which is the model's own.

        Tensor parallelism is for `indextts.accel.deepspeed.split_blocks` to ask for, and graphs are for
        `indextts.accel.deepspeed.DeepSpeedCapture`: an engine of DeepSpeed captures a single shape.
        """
        arguments: dict[str, Any] = {
            "replace_with_kernel_inject": False,
            "enable_cuda_graph": False,
            "tensor_parallel": {"enabled": False, "tp_size": 1},
        }
        if self.max_out_tokens is not None:
            arguments["max_out_tokens"] = self.max_out_tokens
        if self.quant is not None:
            arguments["quant"] = self.quant
        return arguments


def load_ds_config(path: Path | None) -> DeepSpeedConfig:
    """Read and translate a DeepSpeed configuration; None means the one at the top level of the repository.

    Raises:
        ConfigError: unreadable, not JSON with comments, or a key or value without a use here, by name.
    """
    path = path or DEFAULT_DS_CONFIG
    translation = _Translation(path)
    translation.add(translation.mapping(read_json(path), "the file"), "")
    return DeepSpeedConfig(
        path, **translation.values, training_only=tuple(translation.training_only), origin=translation.origin
    )


def read_json(path: Path) -> Any:
    """The content of a JSON file that may hold ``//`` and ``/* */`` comments.

    Raises:
        ConfigError: what is wrong and, where that can be told, in which line.
    """
    import json5

    start = f"cannot read the DeepSpeed configuration {path}"
    expected = "it must be JSON, with // and /* */ comments if you like"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigError(f"{start}: it is larger than {MAX_FILE_BYTES:,} bytes")
        return json5.loads(content.decode("utf-8-sig"), allow_duplicate_keys=False)
    except OSError as error:
        raise ConfigError(f"{start}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{start}, line {line}: not UTF-8 text; {expected}") from error
    except RecursionError as error:
        raise ConfigError(f"{start}: nested too deeply; {expected}") from error
    except ValueError as error:
        said = str(error).replace("\n", "\\n")
        place = re.match(r"<string>:(\d+) (.*)", said)
        what = f", line {place[1]}: {place[2]}" if place else f": {said}"
        raise ConfigError(f"{start}{what}; {expected}") from error


def check_tensor_parallel(tp_size: int, heads: int, gpus: int, device: str | None = None) -> None:
    """Whether a model with ``heads`` attention heads can be split over ``tp_size`` of ``gpus``; 0 GPUs are not checked.

    ``device`` is where the model is meant to be.

    Raises:
        ConfigError: it cannot; the message says what would be right.
    """
    if heads % tp_size:
        sizes = ", ".join(str(size) for size in range(1, heads + 1) if heads % size == 0)
        raise ConfigError(f"--ds-tp-size {tp_size} does not divide the model's {heads} attention heads: use {sizes}")
    if gpus and tp_size > gpus:
        raise ConfigError(f"--ds-tp-size {tp_size} is more than the {gpus} GPU(s) of this machine")
    if tp_size > 1 and device is not None and device.startswith("cuda:") and device != "cuda:0":
        raise ConfigError(
            f"--device {device} contradicts --ds-tp-size {tp_size}, which takes the first {tp_size} GPUs: leave "
            "--device out, and choose the GPUs by the environment variable CUDA_VISIBLE_DEVICES"
        )


def check_before_loading(config: EngineConfig) -> None:
    """Find what is wrong with the file, or with it and the flags together, before the model is loaded.

    Raises:
        ConfigError: see `load_ds_config`, `DeepSpeedConfig.merged_into` and `check_tensor_parallel`.
    """
    import torch

    if config.deepspeed:
        config = load_ds_config(config.ds_config).merged_into(config)
    if config.ds_tp_size > 1:
        own = config.config_path or config.model_dir / "config.yaml"
        heads = load_model_config(own if own.is_file() else BUNDLED_DIR / "config.yaml").gpt.heads
        gpus = 0 if config.device == "cpu" else torch.cuda.device_count()
        check_tensor_parallel(config.ds_tp_size, heads, gpus, config.device)


def as_json(value: Any) -> str:
    """``value`` as it stands in a file, for messages."""
    try:
        return json.dumps(value)
    except ValueError:  # Python does not write out numbers of thousands of digits
        return "a number of thousands of digits"


class _Translation:
    """Collects what a file says, key by key, and finds where it contradicts itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        self.origin: dict[str, str] = {}
        self.training_only: list[str] = []

    def add(self, section: dict[str, Any], prefix: str) -> None:
        """Take over the keys of the file, or of its section ``inference``; ``prefix`` is for messages."""
        for key, value in section.items():
            name = prefix + key
            if key == "inference" and not prefix:
                self.add(self.mapping(value, name), "inference.")
            elif key in TRAINING_KEYS and not prefix:
                self.training_only.append(name)
            elif key in INFERENCE_KEYS:
                self.add_inference_key(key, name, value)
            else:
                raise self.unknown(name, key, (*INFERENCE_KEYS, *(() if prefix else ("inference", *TRAINING_KEYS))))

    def add_inference_key(self, key: str, name: str, value: Any) -> None:
        if key == "dtype":
            self.add_dtype(name, value)
        elif key in ("fp16", "bf16", "bfloat16"):
            self.add_precision("fp16" if key == "fp16" else "bf16", name, self.mapping(value, name))
        elif key in ("tensor_parallel", "tp"):
            self.add_tensor_parallel(name, self.mapping(value, name))
        elif key == "mp_size":
            self.settle("ds_tp_size", self.count(value, name), name, value)
        elif key == "enable_cuda_graph":
            self.settle("cuda_graph", self.switch(value, name), name, value)
        elif key in ("max_out_tokens", "max_tokens"):
            self.settle("max_out_tokens", self.count(value, name), name, value)
        elif key == "quant":
            for inner in self.mapping(value, name):
                if inner not in QUANT_KEYS:
                    raise self.unknown(f"{name}.{inner}", inner, QUANT_KEYS)
            self.switch(value.get("enabled", True), f"{name}.enabled")
            self.settle("quant", value, name, value)
        elif self.switch(value, name):
            raise ConfigError(f"{self.path}: {name} cannot be true: {NO_KERNEL_INJECTION}")

    def add_dtype(self, name: str, value: Any) -> None:
        found = [dtype for dtype, spellings in DTYPES.items() if value in spellings]
        if not found:
            raise self.wrong(name, " or ".join(DTYPES), value)
        for option in ("fp16", "bf16"):
            self.settle(option, found == [option], name, value)

    def add_precision(self, option: str, name: str, section: dict[str, Any]) -> None:
        for key, value in section.items():
            inner = f"{name}.{key}"
            if key in TRAINING_PRECISION_KEYS:
                self.training_only.append(inner)
            elif key != "enabled":
                raise self.unknown(inner, key, ("enabled", *TRAINING_PRECISION_KEYS))
            elif self.switch(value, inner):
                for each in ("fp16", "bf16"):
                    self.settle(each, each == option, inner, value)
            else:
                self.settle(option, False, inner, value)

    def add_tensor_parallel(self, name: str, section: dict[str, Any]) -> None:
        for key in section:
            if key not in ("enabled", "tp_size"):
                raise self.unknown(f"{name}.{key}", key, ("enabled", "tp_size"))
        tp_size = self.count(section.get("tp_size", 1), f"{name}.tp_size")
        if not self.switch(section.get("enabled", True), f"{name}.enabled"):
            self.settle("ds_tp_size", 1, f"{name}.enabled", False)
        elif "tp_size" in section:
            self.settle("ds_tp_size", tp_size, f"{name}.tp_size", tp_size)

    def settle(self, option: str, meaning: Any, name: str, value: Any) -> None:
        """The key ``name`` with ``value`` means ``meaning`` for ``option``; two keys may not mean different things."""
        said = f"{name} is {as_json(value)}"
        if option in self.values and self.values[option] != meaning:
            raise ConfigError(f"{self.path}: {said} contradicts what stands before, {self.origin[option]}")
        self.values[option] = meaning
        self.origin.setdefault(option, said)

    def mapping(self, value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.wrong(name, "a JSON object, {...}", value)
        return value

    def switch(self, value: Any, name: str) -> bool:
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value

    def count(self, value: Any, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
            raise self.wrong(name, f"a whole number from 1 to {MAX_COUNT:,}", value)
        return value

    def wrong(self, name: str, expected: str, value: Any) -> ConfigError:
        return ConfigError(f"{self.path}: {name} must be {expected}, not {as_json(value)[:80]}")

    def unknown(self, name: str, key: str, known: tuple[str, ...]) -> ConfigError:
        close = difflib.get_close_matches(key, known, n=1)
        listed = ", ".join(sorted(set(known) - TRAINING_KEYS - TRAINING_PRECISION_KEYS))
        hint = f"did you mean {close[0]!r}?" if close else f"of use here are {listed}"
        return ConfigError(f"{self.path}: {name!r} is not a key that is known here; {hint}")
