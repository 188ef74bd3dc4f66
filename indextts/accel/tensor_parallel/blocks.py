"""The blocks of the language model in a form that DeepSpeed splits, and their split."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from indextts.accel.deepspeed import SUMMED_LAYERS, split_blocks
from indextts.accel.ds_config import DeepSpeedConfig
from indextts.accel.tensor_parallel.processes import send
from indextts.models.gpt2 import GPT2, Conv1D


def share(trunk: GPT2, tp_size: int, ds_config: DeepSpeedConfig) -> nn.Module:
    """Take over the weights of process 0 and keep this process's share of them. To be called by all processes.

    Args:
        trunk: Changed in place. Its weights are those to be shared in process 0, and anything elsewhere.

    Returns:
        An engine of DeepSpeed that computes what ``trunk`` did, if all processes call it with the same arguments.

    Raises:
        ConfigError: DeepSpeed refuses the settings.
    """
    with torch.no_grad():
        use_linear_layers(trunk, tp_size)
        for parameter in trunk.parameters():
            send(parameter.data)
    return split_blocks(trunk, tp_size, ds_config)


def use_linear_layers(trunk: GPT2, tp_size: int) -> None:
    """Put ``nn.Linear``, which DeepSpeed knows to split, in place of each `Conv1D`.

    DeepSpeed cuts the rows of a layer into ``tp_size`` stretches. So the queries, keys and values, which come out of
    one layer one after the other, are put in an order in which a stretch has all three of some heads.
    """
    for block in trunk.h:
        for module, name, kinds in ((block.attn, "c_attn", 3), (block.attn, "c_proj", 1), (block.mlp, "c_fc", 1),
                                    (block.mlp, "c_proj", 1)):  # fmt: skip
            setattr(module, name, _linear(getattr(module, name), kinds, tp_size))


def _linear(layer: Conv1D, kinds: int, tp_size: int) -> nn.Linear:
    def ordered(rows: Tensor) -> Tensor:
        stretches = rows.unflatten(0, (kinds, tp_size, -1)) if kinds > 1 else rows[None, None]
        return stretches.transpose(0, 1).flatten(0, 2).contiguous()

    in_features, out_features = layer.weight.shape
    linear = nn.Linear(in_features, out_features, device="meta")
    linear.weight = nn.Parameter(ordered(layer.weight.T), requires_grad=False)
    linear.bias = nn.Parameter(ordered(layer.bias), requires_grad=False)
    return linear


def summed_layers(trunk: nn.Module) -> list[nn.Module]:
    """The layers of a split trunk at whose ends the processes add up what they have, in the order of their turns."""
    return [module for name, module in trunk.named_modules() if name.endswith(SUMMED_LAYERS)]
