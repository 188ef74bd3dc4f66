"""Speech codes to mel: the three networks of ``s2mel.pth`` under their names there (spec 9)."""

from __future__ import annotations

from itertools import pairwise
from typing import overload

import torch
from torch import Tensor, nn

from indextts.config import S2MelConfig
from indextts.errors import ConfigError
from indextts.models.dit import DiT
from indextts.models.flow_matching import Solver, solve
from indextts.models.length_regulator import LengthRegulator

# Patterns of keys that the released file carries and inference never reads; they are not built.
UNUSED_KEYS = (
    "cfm.estimator.x_embedder.*",  # its work is done by cond_x_merge_linear
    "cfm.estimator.cond_embedder.*",  # for discrete contents; ours are continuous, through cond_projection
    "cfm.estimator.content_mask_embedder.*",  # for masked contents in training
    "cfm.estimator.transformer.layers.*.skip_in_linear.*",  # layers of the first half, which take no skip
    "length_regulator.embedding.*",  # for discrete contents
    "length_regulator.mask_token",  # for masked contents in training
)


class S2Mel(nn.Module):
    """Projection of the GPT's latents, length regulator, and the flow's estimator under ``cfm``.

    Attributes:
        solve: Integrates the flow.
    """

    def __init__(self, config: S2MelConfig) -> None:
        super().__init__()
        if config.length_regulator.channels != config.DiT.content_dim:
            raise ConfigError(
                f"s2mel.length_regulator.channels ({config.length_regulator.channels}) must equal "
                f"s2mel.DiT.content_dim ({config.DiT.content_dim})"
            )
        self.frames_per_code = config.frames_per_code
        self.cfm = nn.ModuleDict({"estimator": DiT(config)})
        self.length_regulator = LengthRegulator(config.length_regulator)
        # No activation in between: matrices in a row, as released.
        self.gpt_layer = nn.Sequential(*(nn.Linear(n, m) for n, m in pairwise(config.gpt_layer_dims)))
        self.solve: Solver = solve

    @property
    def estimator(self) -> DiT:
        """Velocity of the flow, for ``solve``."""
        estimator = self.cfm["estimator"]
        assert isinstance(estimator, DiT)
        return estimator

    @overload
    def target_frames(self, num_codes: int) -> int: ...
    @overload
    def target_frames(self, num_codes: Tensor) -> Tensor: ...
    def target_frames(self, num_codes: int | Tensor) -> int | Tensor:
        """Mel frames that so many codes become, truncated from single precision as released."""
        frames = (torch.as_tensor(num_codes).float() * self.frames_per_code).long()
        return frames if isinstance(num_codes, Tensor) else int(frames)
