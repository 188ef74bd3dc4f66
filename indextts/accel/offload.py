"""``--cpu-offload``: networks that only listen to recordings stay in main memory, and visit the device to do so.

The conditioning of a voice is computed once and cached. All that it needs and speaking does not can therefore wait in
(pinned) main memory: each of these networks, and of the largest one each layer, is on the device only for the time of
its own call. Nobody asks for it: hooks bring the weights and let go of the copies again.

The weights of the released model, in millions, and what they take at half precision (2 bytes each):

    ============================  =======  =====  ============================================
    network                       weights     GB  where
    ============================  =======  =====  ============================================
    language model, speaking        530.0   1.06  on the device
    flow, codebook                   98.5   0.20  on the device
    vocoder                         112.2   0.22  on the device
    semantic encoder, 17 layers     411.2   0.82  main memory; 24.2 visit the device at a time
    speaker and emotion encoders    336.0   0.67  main memory; 159.3 at most at a time
    semantic codec's encoder         22.1   0.04  main memory
    style encoder                     6.8   0.01  main memory
    ============================  =======  =====  ============================================

So 1.48 GB are on the device instead of 3.03, and 1.80 GB while a voice is listened to. Of the 3.2 GB that shall be
enough this leaves 1.4 GB for activations, and 1.7 GB while speaking: for the cache of keys and values (0.25 GB for 13 s
of speech with 3 beams, 0.67 GB for the longest segment) and activations. So the networks that speak can stay. To have
each of them on the device for its own stage only would save another 0.4 GB, and send 1.5 GB over the bus for every
segment. An encoder that stays in float32 takes twice as much, layer by layer, and changes little of this.

DeepSpeed's own offload (ZeRO-Inference) streams the weights of a model through the device at every forward pass, that
is for every code: 1 GB or 40 ms at the 25 GB/s of a PCIe 4.0 slot, many times what a decode step takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from indextts.loading import Models


def can_offload(device: torch.device) -> bool:
    """Whether there is anything to be gained: a device with a memory of its own, to which pinned memory is copied."""
    return device.type == "cuda"


def apply_offload(models: Models) -> list[Visitor]:
    """Let the networks that only conditioning needs rest in main memory, and have all others on the device.

    Works on networks that are on the device already, and on such that are still in main memory. Precisions and other
    replacements of weights come before.

    Returns:
        What rests.
    """
    visitors = [Visitor(name, module, models.device) for name, module in listening(models)]
    resting = {id(tensor) for visitor in visitors for tensor in tensors_of(visitor.module)}
    for network in models.networks().values():
        for tensor in tensors_of(network):
            if id(tensor) not in resting:
                tensor.data = tensor.data.to(models.device)
    return visitors


def listening(models: Models) -> Iterator[tuple[str, nn.Module]]:
    """The networks that only conditioning needs, in pieces that are called one after the other."""
    for number, layer in enumerate(models.semantic_encoder.encoder.layers):
        yield f"semantic_encoder.{number}", layer
    yield "semantic_codec.encoder", models.semantic_codec.encoder
    yield "style_encoder", models.style_encoder
    for name in ("conditioning_encoder", "perceiver_encoder", "emo_conditioning_encoder", "emo_perceiver_encoder"):
        yield f"gpt.{name}", getattr(models.gpt, name)


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Weights and buffers."""
    return chain(module.parameters(), module.buffers())


class Visitor:
    """A module whose weights are in main memory but for the time of a call. They must not change any more."""

    def __init__(self, name: str, module: nn.Module, device: torch.device) -> None:
        self.name, self.module, self.device = name, module, device
        self.is_on_device = False
        self.homes = [(tensor, self._home(tensor)) for tensor in tensors_of(module)]
        self.leave()
        module.register_forward_pre_hook(self.come)
        module.register_forward_hook(self.leave, always_call=True)

    def _home(self, tensor: Tensor) -> Tensor:
        home = tensor.data.to("cpu")
        return home.pin_memory() if can_offload(self.device) else home

    def come(self, *_: object) -> None:
        """Copy the weights to the device, behind whatever it has to do before."""
        # Tensors made in inference mode could never leave it again.
        with torch.inference_mode(False):
            for tensor, home in self.homes:
                tensor.data = home.to(self.device, non_blocking=True, copy=True)
        self.is_on_device = True

    def leave(self, *_: object) -> None:
        """Forget the copies: what the device still computes with them comes before whatever gets their memory."""
        for tensor, home in self.homes:
            tensor.data = home
        self.is_on_device = False
