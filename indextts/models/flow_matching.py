"""From noise to mel: Euler integration of the flow with classifier-free guidance (spec 9.3).

Rows of a batch may differ in length and in the length of their prompt. A row holds its prompt, then its speech,
then padding; every row comes out as it would alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

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


@dataclass(frozen=True)
class Flow:
    """An integration on its way: what one step reads, and ``x`` and ``step`` that it changes in place.

    The noisy mel and its update stay float32, whatever precision the estimator is in.

    Attributes:
        x: float32 ``[B, 80, F - start]``, the noisy mel.
        step: int64 ``[1]``, how many steps have been made.
        in_speech: bool ``[B, 1, F - start]``, the frames that move.
        modulations: ``[steps, N]``, what the estimator makes of the times at which the steps begin.
        durations: float32 ``[steps]``, how far they go.
        known: The conditions, with guidance of all rows and then of all rows without them.
        cfg_rate: Strength of the guidance.
    """

    x: Tensor
    step: Tensor
    in_speech: Tensor
    modulations: Tensor
    durations: Tensor
    known: Conditions
    cfg_rate: float


class Solver(Protocol):
    """`solve`, or what does the same in another way."""

    def __call__(
        self, estimator: DiT, noise: Tensor, mu: Tensor, prompt: Tensor, style: Tensor, *, steps: int, cfg_rate: float,
        x_lens: Tensor | None = None, prompt_lens: Tensor | None = None, before_step: Callable[[], None] | None = None,
    ) -> Tensor: ...  # fmt: skip


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
    flow = start_flow(
        estimator, noise, mu, prompt, style, steps=steps, cfg_rate=cfg_rate, x_lens=x_lens, prompt_lens=prompt_lens
    )
    for _ in range(steps):
        if before_step is not None:
            before_step()
        euler_step(estimator, flow)
    return F.pad(flow.x, (flow.known.start, 0))


def start_flow(
    estimator: DiT, noise: Tensor, mu: Tensor, prompt: Tensor, style: Tensor, *, steps: int, cfg_rate: float,
    x_lens: Tensor | None = None, prompt_lens: Tensor | None = None, start: int | None = None,
    lengths: tuple[int, ...] | None = None,
) -> Flow:  # fmt: skip
    """All that comes before the first step. Arguments as for ``solve``.

    ``start`` is the first frame that is integrated, the shortest prompt's end if it is None. It may be earlier.
    ``lengths`` are ``x_lens`` once more, where the host knows them and attention may be split by them.
    """
    rows, _, frames = noise.shape
    if prompt_lens is None:
        prompt_lens = torch.full((rows,), prompt.shape[2], device=noise.device)
    if start is None:
        start = int(prompt_lens.min())  # no row moves before
    in_prompt = length_mask(prompt_lens, frames)[:, None]
    in_speech = ~in_prompt if x_lens is None else ~in_prompt & length_mask(x_lens, frames)[:, None]
    prompt_x = F.pad(prompt, (0, frames - prompt.shape[2])) * in_prompt
    times, durations = schedule(steps, noise.device)
    return Flow(
        x=noise[..., start:].float() * in_speech[..., start:],
        step=torch.zeros(1, dtype=torch.long, device=noise.device),
        in_speech=in_speech[..., start:],
        modulations=estimator.modulate(times),
        durations=durations,
        known=guided_conditions(estimator, prompt_x, x_lens, style, mu, cfg_rate, start, lengths),
        cfg_rate=cfg_rate,
    )


def schedule(steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """When each of some equal steps from 0 to 1 begins and how far it goes, float32 ``[steps]`` each.

    As released, the durations are differences of rounded times and the times sums of rounded durations.
    """
    durations = torch.linspace(0, 1, steps + 1).diff()
    times = list(itertools.accumulate(durations[:-1], initial=torch.zeros(())))
    return torch.stack(times).to(device), durations.to(device)


def euler_step(estimator: DiT, flow: Flow) -> None:
    """One step, on the device alone: it can be captured and replayed."""
    modulation = flow.modulations.index_select(0, flow.step)
    velocity = guided_velocity(estimator, flow.x, modulation, flow.known, flow.cfg_rate)
    duration = flow.durations.index_select(0, flow.step)
    flow.x.addcmul_(duration, velocity).mul_(flow.in_speech)
    flow.step.add_(1)


def guided_conditions(
    estimator: DiT, prompt_x: Tensor, x_lens: Tensor | None, style: Tensor, mu: Tensor, cfg_rate: float, start: int = 0,
    lengths: tuple[int, ...] | None = None,
) -> Conditions:  # fmt: skip
    """Conditions for ``guided_velocity``, from ``start`` on: with guidance, all rows and then all rows without them.

    The unconditional rows have prompt, style and mu zeroed before any projection.
    """
    if cfg_rate != 0:
        prompt_x, style, mu = (torch.cat([known, torch.zeros_like(known)]) for known in (prompt_x, style, mu))
        x_lens = None if x_lens is None else x_lens.repeat(2)
    return estimator.prepare(prompt_x, x_lens, style, mu, edges=x_lens, start=start, lengths=lengths)


def guided_velocity(estimator: DiT, x: Tensor, modulation: Tensor, known: Conditions, cfg_rate: float) -> Tensor:
    """Velocity of ``x [B, 80, F]`` at the flow time of ``modulation [1, N]``, pushed away from the unconditional."""
    if cfg_rate == 0:
        return estimator.velocity(x, modulation, known)
    conditional, unconditional = estimator.velocity(x.repeat(2, 1, 1), modulation, known).chunk(2)
    return (1 + cfg_rate) * conditional - cfg_rate * unconditional
