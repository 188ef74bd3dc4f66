"""What every training has in common: the clock, the learning rate, the log and the checkpoints."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

CHECKPOINT_EVERY_S = 60.0
LOG_EVERY_S = 10.0
EVALUATE_EVERY_S = 30.0


def arguments(description: str | None, minutes: float, **extra: Any) -> argparse.Namespace:
    """Parse the options that all trainers share, and ``extra`` ones given by name and default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the generated speech")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, logs and results")
    parser.add_argument("--config", type=Path, default=Path("checkpoints/nano/config.yaml"))
    parser.add_argument("--minutes", type=float, default=minutes, help="training time, resumed runs included")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out, if any")
    parser.add_argument("--smoke", action="store_true", help="a few tiny steps on the CPU: does it run at all?")
    parser.add_argument("--seed", type=int, default=0)
    for name, default in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return parser.parse_args()


def device_for(smoke: bool) -> torch.device:
    """The CPU for a smoke test, else the GPU."""
    if smoke:
        return torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    # cuDNN's attention plans anew on the host for every batch shape; suspected of having left the GPU idle.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device("cuda")


def save_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file in one step."""
    partial = path.with_suffix(".partial")
    save_file({key: value.detach().contiguous().cpu() for key, value in tensors.items()}, partial)
    os.replace(partial, path)


class Loop:
    """A training that ends when its time is up, or after so many steps, however often it was interrupted.

    The learning rate follows the share that is done: a linear rise, then a cosine fall to 1 %.
    """

    def __init__(
        self,
        name: str,
        options: argparse.Namespace,
        parts: dict[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        smoke_steps: int = 3,
        steps: int | None = None,
    ) -> None:
        """Args:
        name: of the checkpoint ``OUT/<name>.pt`` and the log ``OUT/<name>.log``.
        options: from :func:`arguments`.
        parts: modules whose weights the checkpoint holds.
        optimizer: its groups' ``lr`` is the peak; a group with ``begin`` rests until that share of the time.
        smoke_steps: length of a smoke test.
        steps: length of a training that is counted in steps and not in ``options.minutes``.
        """
        self.name, self.out, self.parts, self.optimizer = name, options.out, parts, optimizer
        self.smoke = options.smoke
        self.max_steps = smoke_steps if self.smoke else steps
        self.total_s = options.minutes * 60 if self.max_steps is None else math.inf
        self.step, self._earlier_s = 0, 0.0
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self._sums: dict[str, Tensor | float] = {}
        self._count = 0
        self.out.mkdir(parents=True, exist_ok=True)
        self.log = _logger(name, self.out / f"{name}.log")
        if options.resume:
            self._load()
        self._begin = self._last_log = self._last_save = self._last_evaluation = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._begin

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 to 1."""
        if self.max_steps is not None:
            return min(1.0, self.step / self.max_steps)
        return min(1.0, self.elapsed_s / self.total_s)

    def steps(self) -> Iterator[int]:
        """Count steps until the time is up, setting the learning rate and saving on the way."""
        while self.progress < 1.0:
            for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
                group["lr"] = peak * _one_cycle(self.progress, group.get("begin", 0.0))
            yield self.step
            self.step += 1
            if time.monotonic() - self._last_save > CHECKPOINT_EVERY_S:
                self.save()
        self.save()

    def update(self, loss: Tensor, max_norm: float = 1.0) -> None:
        """Backward, clip, and take an optimiser step; a step whose gradients are not finite is left out."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        if torch.isfinite(nn.utils.clip_grad_norm_(weights, max_norm)):
            self.optimizer.step()
        else:
            self.log.warning("step %d left out: its gradients are not finite", self.step)

    def report(self, **figures: Tensor | float) -> None:
        """Average the figures, and log them every ten seconds."""
        for key, value in figures.items():
            value = value.detach() if isinstance(value, Tensor) else value
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count += 1
        now = time.monotonic()
        if now - self._last_log > LOG_EVERY_S or self.smoke:
            rate = self._count / (now - self._last_log + 1e-9)
            text = "  ".join(f"{key} {float(value) / self._count:.4f}" for key, value in self._sums.items())
            self.log.info("%5.0f s  step %d  %.1f/s  %s", self.elapsed_s, self.step, rate, text)
            self._sums, self._count, self._last_log = {}, 0, now

    def evaluation_due(self) -> bool:
        """True twice a minute, and at every step of a smoke test."""
        due = self.smoke or time.monotonic() - self._last_evaluation > EVALUATE_EVERY_S
        if due:
            self._last_evaluation = time.monotonic()
        return due

    def save(self) -> None:
        """Write the checkpoint in one step."""
        self._last_save = time.monotonic()
        state = {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }
        partial = self.out / f"{self.name}.pt.partial"
        torch.save(state, partial)
        os.replace(partial, self.out / f"{self.name}.pt")

    def _load(self) -> None:
        path = self.out / f"{self.name}.pt"
        if not path.exists():
            self.log.info("nothing to resume in %s", self.out)
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self._earlier_s = state["step"], state["elapsed_s"]
        if self.smoke and self.max_steps is not None:
            self.max_steps += self.step
        self.log.info("resumed at step %d, %.0f s", self.step, self._earlier_s)


def _one_cycle(progress: float, begin: float = 0.0, warmup: float = 0.05, floor: float = 0.01) -> float:
    if progress < begin:
        return 0.0
    if progress < begin + warmup:
        return floor + (1 - floor) * (progress - begin) / warmup
    fall = (progress - begin - warmup) / (1 - begin - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * fall))


def _logger(name: str, path: Path) -> logging.Logger:
    """Messages to standard output and to a file."""
    log = logging.getLogger(f"training.{name}")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers.clear()
    for handler in (logging.StreamHandler(sys.stdout), logging.FileHandler(path)):
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    return log
