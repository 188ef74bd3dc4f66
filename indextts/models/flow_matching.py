"""From noise to mel: Euler integration of the flow with classifier-free guidance (spec 9.3).

Rows of a batch may differ in length and in the length of their prompt. A row holds its prompt, then its speech,
then padding; every row comes out as it would alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from indextts.models.conformer import length_mask
from indextts.models.dit import Conditions, DiT


def join_rows(
    first: Tensor, first_lens: Tensor, second: Tensor, second_lens: Tensor, num_frames: int | None = None
) -> Tensor:
    """Concatenate ragged rows in time: the second part begins where the first one really ends.

    Args:
        first: ``[B, F1, C]``
        first_lens: int64 ``[B]``, its valid frames.
        second: ``[B, F2, C]``
        second_lens: int64 ``[B]``, its valid frames.
        num_frames: F, the longest of all rows by default. Naming it spares waiting for the device.

    Returns:
        ``[B, F, C]``, zero beyond each row's end.
    """
    total = first_lens + second_lens
    frames = int(total.max()) if num_frames is None else num_frames
    frame = torch.arange(frames, device=first.device).expand(len(first), -1)
    both = torch.cat([first, second], dim=1)
    index = torch.where(frame < first_lens[:, None], frame, frame - first_lens[:, None] + first.shape[1])
    index = index.clamp(max=both.shape[1] - 1)[:, :, None].expand(-1, -1, both.shape[2])
    return both.gather(1, index) * length_mask(total, frames)[:, :, None]


def solve(
    estimator: DiT, noise: Tensor, mu: Tensor, prompt: Tensor, style: Tensor, *, steps: int, cfg_rate: float,
    x_lens: Tensor | None = None, prompt_lens: Tensor | None = None, before_step: Callable[[], None] | None = None,
) -> Tensor:  # fmt: skip
    """Integrate from noise to mel in equal steps.

    Args:
        estimator: Gives the velocity.
        noise: ``[B, 80, F]`` Gaussian; that in the prompt's frames is not used.
        mu: ``[B, F, C]`` conditions of prompt and speech, joined.
        prompt: ``[B, 80, P]`` mel of the prompts.
        style: ``[B, S]``.
        steps: Number of Euler steps.
        cfg_rate: Strength of the guidance; 0 evaluates no unconditional branch.
        x_lens: int64 ``[B]`` frames of prompt and speech together; None means F for all rows.
        prompt_lens: int64 ``[B]`` frames of the prompts; None means P for all rows.
        before_step: Called before each step; raises to give up.

    Returns:
        ``[B, 80, F]``, zero in the prompt and beyond ``x_lens``; the mel of row i is
        ``[i, :, prompt_lens[i]:x_lens[i]]``.
    """
    rows, _, frames = noise.shape
    if prompt_lens is None:
        prompt_lens = torch.full((rows,), prompt.shape[2], device=noise.device)
    in_prompt = length_mask(prompt_lens, frames)[:, None]
    in_speech = ~in_prompt if x_lens is None else ~in_prompt & length_mask(x_lens, frames)[:, None]
    prompt_x = F.pad(prompt, (0, frames - prompt.shape[2])) * in_prompt
    start = int(prompt_lens.min())  # no row moves before
    known = guided_conditions(estimator, prompt_x, x_lens, style, mu, cfg_rate, start)
    in_speech = in_speech[..., start:]
    x = noise[..., start:] * in_speech
    times = torch.linspace(0, 1, steps + 1, device=noise.device)
    t = torch.zeros((), device=noise.device)
    for step in times.diff():
        if before_step is not None:
            before_step()
        x = (x + step * guided_velocity(estimator, x, t, known, cfg_rate)) * in_speech
        t = t + step
    return F.pad(x, (start, 0))


def guided_conditions(
    estimator: DiT, prompt_x: Tensor, x_lens: Tensor | None, style: Tensor, mu: Tensor, cfg_rate: float, start: int = 0
) -> Conditions:
    """Conditions for ``guided_velocity``, from ``start`` on: with guidance, all rows and then all rows without them.

    The unconditional rows have prompt, style and mu zeroed before any projection.
    """
    if cfg_rate != 0:
        prompt_x, style, mu = (torch.cat([known, torch.zeros_like(known)]) for known in (prompt_x, style, mu))
        x_lens = None if x_lens is None else x_lens.repeat(2)
    return estimator.prepare(prompt_x, x_lens, style, mu, edges=x_lens, start=start)


def guided_velocity(estimator: DiT, x: Tensor, t: Tensor, known: Conditions, cfg_rate: float) -> Tensor:
    """Velocity of ``x [B, 80, F]`` at flow time ``t`` (a scalar), pushed away from the unconditional one."""
    if cfg_rate == 0:
        return estimator.velocity(x, t.expand(len(x)), known)
    velocity = estimator.velocity(x.repeat(2, 1, 1), t.expand(2 * len(x)), known)
    conditional, unconditional = velocity.chunk(2)
    return (1 + cfg_rate) * conditional - cfg_rate * unconditional
