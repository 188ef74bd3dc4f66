"""Shows the language model where in the text the speech is."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from indextts.models.gpt import UnifiedVoice
from training.gpt_batches import GPTBatch


class AttentionGuide:
    """Teaches the first head of the two middle layers to look at the text that is being spoken.

    The teacher tells which text id each code speaks. With that the model follows the text within a few hundred steps;
    by itself it long knows only about where it is, and leaves words out or says them twice.
    """

    def __init__(self, model: UnifiedVoice) -> None:
        self.heads, self.first_text = model.config.heads, model.config.condition_num_latent + 2 + 1
        self._projected: dict[int, Tensor] = {}
        middle = len(model.gpt.h) // 2
        for layer in range(max(0, middle - 1), middle + 1):
            model.gpt.h[layer].get_submodule("attn.c_attn").register_forward_hook(self._keep(layer))

    def _keep(self, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._projected[layer] = output

        return hook

    def loss(self, batch: GPTBatch) -> Tensor:
        """Minus the logarithm of the attention on the right text ids, one more on either side where they change.

        Belongs to the model's last pass, which must have been over this batch.
        """
        spoken, code = batch.spoken, torch.arange(batch.spoken.shape[1], device=batch.spoken.device)
        valid = (spoken >= 0) & (code < batch.code_lengths[:, None])
        # Row i of the codes predicts code i, and stands behind start, text and stop.
        row = (self.first_text + 1 + batch.text_lengths)[:, None] + code
        low = self.first_text + torch.cat([spoken[:, :1], spoken[:, :-1]], dim=1).clamp(min=0)
        high = self.first_text + torch.cat([spoken[:, 1:], spoken[:, -1:]], dim=1)
        losses = []
        for projected in self._projected.values():
            q, k = (x[..., : projected.shape[-1] // 3 // self.heads].float() for x in projected.chunk(3, dim=-1)[:2])
            q = q.gather(1, row.clamp(max=q.shape[1] - 1)[..., None].expand(-1, -1, q.shape[-1]))
            key = torch.arange(k.shape[1], device=k.device)
            scores = (q @ k.transpose(1, 2)) / math.sqrt(q.shape[-1])
            scores = scores.masked_fill(key > row[..., None], -math.inf)
            right = (key >= low[..., None]) & (key <= torch.maximum(high, low)[..., None])
            mass = scores.masked_fill(~right, -1e4).logsumexp(-1) - scores.logsumexp(-1)
            losses.append(-(mass * valid).sum() / valid.sum().clamp(min=1))
        self._projected.clear()
        return torch.stack(losses).mean()
