"""Teach the flow to make fewer and larger steps and to do without guidance, which takes a fifth of the time.

    python -m training.distil_s2mel --data DATA --out OUT --minutes 2.5

Reads ``OUT/s2mel_latents.safetensors`` (with ``--stage codes`` the flow before it has met a language model,
``OUT/s2mel_codes.safetensors``) and writes ``OUT/s2mel.safetensors``, which belongs to the ``steps`` of the
configuration and to a ``cfg_rate`` of 0. One step of the student does what two guided steps of half the size do in the
finished flow (progressive distillation, Salimans and Ho 2022, with the guidance folded in as by Meng et al. 2023).
Only the estimator learns; the conditions stay those of the finished flow.
"""

from __future__ import annotations

import copy
from dataclasses import fields, replace

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from indextts.config import ModelConfig
from indextts.config_file import load_model_config
from indextts.models.dit import DiT
from indextts.models.s2mel import S2Mel
from training.graphs import Figures, step_unless_broken, trainable_step
from training.loop import Loop, device_for, save_weights
from training.s2mel_batches import S2MelBatch
from training.train_gpt import average_into
from training.train_s2mel import (
    MAX_NORM,
    RESULT,
    HeldOut,
    conditions,
    endless,
    flow_arguments,
    open_splits,
    parameter_groups,
)  # fmt: skip

PEAK_LR = 2.0e-4
TEACHER_STEPS = 2  # for one of the student's
TEACHER_GUIDANCE = 0.7
TEACHER_SOLVER_STEPS = 12  # in the figures that the student is compared with


class DistilStep:
    """One step of the student as a function of tensors alone, so that it can be captured as a CUDA graph."""

    def __init__(self, teacher: S2Mel, student: DiT, steps: int, guidance: float, device: torch.device) -> None:
        self.teacher, self.student, self.steps, self.guidance, self.device = teacher, student, steps, guidance, device
        self.weights: list[Tensor] = list(student.parameters())
        self.optimizer = torch.optim.AdamW(
            parameter_groups(student, PEAK_LR), betas=(0.9, 0.98), fused=True, capturable=device.type == "cuda"
        )

    def compute(self, noise: Tensor, t: Tensor, *given: Tensor, prompt_frames: int, target_frames: int) -> Figures:
        """Forward, backward and optimiser.

        Args:
            noise: Like the mel.
            t: ``[B]``, where each row's step begins: a multiple of the student's step.
            given: The tensors of a batch and, of a flow that hears them, the latents of its targets.
            prompt_frames, target_frames: The widths of the batch.
        """
        count = len(fields(S2MelBatch)) - 2
        batch = S2MelBatch(*given[:count], prompt_frames=prompt_frames, target_frames=target_frames)
        latents = given[count] if len(given) > count else None
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):
            with torch.no_grad():
                mu = conditions(self.teacher, batch, latents)
                state = torch.lerp(noise, batch.mel, t[:, None, None]) * batch.speech
                target = self.target(batch, mu, state, t)
            velocity = velocity_of(self.student, batch, mu, state, t)
            error = (velocity.float() - target).square() * batch.speech
            loss = error.sum() / (batch.speech.sum() * error.shape[1])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.weights, MAX_NORM)
        step_unless_broken(self.optimizer, [norm])
        return {"loss": loss.detach(), "norm": norm.detach()}

    def target(self, batch: S2MelBatch, mu: Tensor, state: Tensor, t: Tensor) -> Tensor:
        """Mean velocity of the teacher's guided steps over one step of the student, ``[B, n_mels, F]``."""
        step = 1 / (self.steps * TEACHER_STEPS)
        moved = state
        for _ in range(TEACHER_STEPS):
            velocity = guided_velocity(self.teacher.estimator, batch, mu, moved, t, self.guidance).float()
            moved = (moved + step * velocity) * batch.speech
            t = t + step
        return (moved - state) * self.steps


def velocity_of(estimator: DiT, batch: S2MelBatch, mu: Tensor, state: Tensor, t: Tensor) -> Tensor:
    return estimator(state, batch.prompt_mel, batch.x_lens, t, batch.style, mu, edges=batch.x_lens)


def guided_velocity(estimator: DiT, batch: S2MelBatch, mu: Tensor, state: Tensor, t: Tensor, guidance: float) -> Tensor:
    """As ``indextts.models.flow_matching`` guides: the rows, and all of them again without any condition."""
    prompt, style, known = (torch.cat([x, torch.zeros_like(x)]) for x in (batch.prompt_mel, batch.style, mu))
    lens = batch.x_lens.repeat(2)
    velocity = estimator(state.repeat(2, 1, 1), prompt, lens, t.repeat(2), style, known, edges=lens)
    conditional, unconditional = velocity.chunk(2)
    return (1 + guidance) * conditional - guidance * unconditional


def step_inputs(batch: S2MelBatch, latents: Tensor | None, steps: int, generator: torch.Generator) -> list[Tensor]:
    """The tensors of ``DistilStep.compute``: chance first, then the batch, then the latents if there are any."""
    device = generator.device
    noise = torch.randn(batch.mel.shape, generator=generator, device=device)
    begin = torch.randint(steps, (len(batch.mel),), generator=generator, device=device) / steps
    given = [noise, begin, *batch.tensors()]
    return given if latents is None else [*given, latents]


def solver(config: ModelConfig, steps: int, guidance: float) -> ModelConfig:
    """The configuration with another solver."""
    return replace(config, s2mel=replace(config.s2mel, steps=steps, cfg_rate=guidance))


def evaluate(loop: Loop, heldout: HeldOut, model: S2Mel, config: ModelConfig, name: str) -> None:
    figures = heldout.mel_errors(model, config)
    solved = f"{config.s2mel.steps} steps, guidance {config.s2mel.cfg_rate}"
    loop.log.info("%s, %s: %s", name, solved, "  ".join(f"{key} {value:.4f}" for key, value in figures.items()))


def main() -> None:
    options = flow_arguments(__doc__, minutes=2.5, stage="latents", batch_frames=16384)
    device = device_for(options.smoke)
    torch.manual_seed(options.seed)
    config = load_model_config(options.config)
    if config.s2mel.cfg_rate:
        raise SystemExit(f"a distilled flow needs no guidance: s2mel.cfg_rate must be 0, not {config.s2mel.cfg_rate}")
    (train, train_latents), (heldout, heldout_latents) = open_splits(options, config, device)
    teacher = S2Mel(config.s2mel)
    teacher.load_state_dict(load_file(options.init or options.out / f"{RESULT[options.stage]}.safetensors"))
    teacher.to(device).eval()
    student = copy.deepcopy(teacher)
    averaged = copy.deepcopy(teacher).requires_grad_(False)
    teacher.requires_grad_(False)
    steps = config.s2mel.steps
    training = DistilStep(teacher, student.estimator, steps, TEACHER_GUIDANCE, device)
    parts = {"student": student, "averaged": averaged}
    loop = Loop("s2mel", options, parts, training.optimizer)
    if options.resume and loop.step:  # draw other batches than those seen
        train.seed(options.seed + loop.step)
    fixed = HeldOut.draw(heldout, heldout_latents, 4 if options.smoke else options.heldout)
    evaluate(loop, fixed, teacher, solver(config, TEACHER_SOLVER_STEPS, TEACHER_GUIDANCE), "the finished flow")
    evaluate(loop, fixed, teacher, config, "the finished flow")
    take = trainable_step(training.compute, training.optimizer, device, loop.log.info, graphed=bool(options.graph))
    stream = endless(train, train_latents, 2000 if options.smoke else options.batch_frames)
    for step in loop.steps():
        batch, latents = next(stream)
        figures = take(*step_inputs(batch, latents, steps, train.generator), **batch.widths)
        average_into(averaged, student, step)
        loop.report(**figures, rows=float(len(batch.mel)))
        if loop.evaluation_due():
            evaluate(loop, fixed, averaged, config, "the student")
    evaluate(loop, fixed, averaged, config, "the student at the end")
    save_weights(options.out / "s2mel.safetensors", averaged.state_dict())


if __name__ == "__main__":
    main()
