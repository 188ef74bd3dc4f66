"""Train the flow from speech codes to mel: length regulator, estimator, and the projection of the GPT's latents.

    python -m training.train_s2mel --data DATA --out OUT --stage codes --minutes 10
    python -m training.train_s2mel --data DATA --out OUT --stage latents --minutes 4

The first stage knows the codes only and can run beside the training of the language model; it writes
``OUT/s2mel_codes.safetensors``. The second goes on from there with the latents of the finished model in
``OUT/gpt.safetensors`` and writes ``OUT/s2mel_latents.safetensors``, from which ``training/distil_s2mel.py`` makes the
flow that is shipped. ``--init FILE`` lets either stage go on from earlier
weights, the second with a new projection, since latents of another language model mean something else.
Reads ``OUT/semantics``, the codec and the style vectors.

Conditional flow matching on straight paths: at time t the state is ``(1 - t) * noise + t * mel``, and the estimator
learns the velocity ``mel - noise``. As at inference, the state is zero in the prompt's frames, whose mel is an input
of its own, and a share of the rows loses all conditions for the sake of guidance.

The step consists of many small kernels; on a GPU it is replayed as a CUDA graph, one for each width of batches.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from indextts.config import ModelConfig
from indextts.config_file import load_model_config
from indextts.models.flow_matching import join_rows, solve
from indextts.models.gpt import UnifiedVoice
from indextts.models.s2mel import S2Mel
from indextts.models.semantic_codec import SemanticCodec
from training.dataset import SpeechData
from training.extract_styles import load_styles
from training.gpt_batches import Choice, GPTBatches, upload
from training.graphs import Figures, step_unless_broken, trainable_step
from training.loop import Loop, arguments, device_for, save_weights
from training.s2mel_batches import Rows, S2MelBatch, S2MelBatches
from training.semantics import Semantics
from training.train_gpt import average_into

PEAK_LR = {"codes": 1.0e-3, "latents": 6.0e-4}
WEIGHT_DECAY = 0.01
MAX_NORM = 1.0
SKETCH_WEIGHT = 0.5
NO_CONDITIONS = 0.15  # share of the rows that are trained as the unconditional branch of the guidance
NO_LATENTS = 0.2  # share of the rows whose latents are left out in the second stage
DEGRADED_PROMPTS = 0.2  # share of the batches whose prompts sound like bad recordings
MEL_SCALE, CONDITIONS_SCALE = 0.3, 4.0  # of the initial weights that read them
HELDOUT_UTTERANCES = 128
SOLVED_UTTERANCES = 24
SOLVE_EVERY_EVALUATIONS = 4
PROMPTS_S = {"short": 2.0, "long": 5.0}
RESULT = {"codes": "s2mel_codes", "latents": "s2mel_latents"}


class Latents:
    """Teacher-forced latents of a trained language model for the targets of a batch."""

    def __init__(self, gpt: UnifiedVoice, source: GPTBatches, target_width: Callable[[Rows], int]) -> None:
        self.gpt, self.source, self.target_width = gpt, source, target_width
        self.usable = np.zeros(len(source.length), bool)
        self.usable[source.usable] = True

    @torch.no_grad()
    def __call__(self, rows: Rows) -> tuple[Rows, Tensor]:
        """Rows whose target the model can read, and their latents ``[B, M, D]`` from the first code of each on.

        They are as many as were given, some of them several times, unless no row is left.
        """
        choice = self.source.choose(np.unique(rows.target[self.usable[rows.target]]))
        kept = rows.take(np.isin(rows.target, choice.target))
        if not len(kept):
            return kept, torch.zeros(0, device=self.source.device)
        rows = kept.resized(len(rows))
        place = np.searchsorted(choice.target, rows.target)
        choice = Choice(*(getattr(choice, field.name)[place] for field in fields(Choice)))
        batch = self.source.gather(choice)
        with torch.autocast(batch.codes.device.type, torch.bfloat16):
            latents = self.gpt.latents(
                self.gpt.condition(batch.prompt, batch.prompt_lengths),
                self.gpt.emotion_vector(batch.emotion, batch.emotion_lengths),
                batch.text,
                batch.codes,
                batch.text_lengths,
                batch.code_lengths,
                batch.length_hints,
            )
        at = upload(latents.device, begin=rows.target_begin)["begin"][:, None]
        at = at + torch.arange(self.target_width(rows), device=latents.device)
        at = at.clamp(max=latents.shape[1] - 1)[..., None].expand(-1, -1, latents.shape[2])
        return rows, latents.float().gather(1, at)


def initialise(model: S2Mel, mel: Tensor) -> None:
    """Residual branches that begin small, and an output that begins as the mean of the mel ``[frames, n_mels]``.

    Log-mels are large numbers far from zero, and the conditions are small ones: where they meet, the weights begin so
    that both weigh about the same.
    """
    depth = len(model.estimator.transformer.layers)
    begin_projection(model)
    for name, parameter in model.named_parameters():
        if name.endswith(("attention.wo.weight", "feed_forward.w2.weight")):
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth))
    nn.init.zeros_(model.estimator.conv2.weight)
    assert model.estimator.conv2.bias is not None
    with torch.no_grad():
        model.estimator.conv2.bias.copy_(mel.float().mean(0))
        mels, width = model.estimator.conv2.weight.shape[:2]
        model.estimator.cond_x_merge_linear.weight[:, : 2 * mels].mul_(MEL_SCALE)
        model.estimator.cond_x_merge_linear.weight[:, 2 * mels : 2 * mels + width].mul_(CONDITIONS_SCALE)
        model.estimator.skip_linear.weight[:, width:].mul_(MEL_SCALE)


@torch.no_grad()
def begin_projection(model: S2Mel) -> None:
    """Let the projection of the latents begin anew, and small."""
    for layer in model.gpt_layer:
        assert isinstance(layer, nn.Linear)
        layer.reset_parameters()
    last = model.gpt_layer[-1]
    last.weight.mul_(0.1)
    last.bias.zero_()


def parameter_groups(model: nn.Module, peak_lr: float) -> list[dict]:
    """Matrices decay; biases, norms and the two parts of weight norm do not."""
    decays, others = [], []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim >= 2 and not name.endswith(("weight_g", "weight_v"))
        (decays if matrix else others).append(parameter)
    return [
        {"params": decays, "lr": peak_lr, "weight_decay": WEIGHT_DECAY},
        {"params": others, "lr": peak_lr, "weight_decay": 0.0},
    ]


def conditions(model: S2Mel, batch: S2MelBatch, latents: Tensor | None, latents_kept: Tensor | None = None) -> Tensor:
    """What the estimator is told about every frame of prompt and target, ``[B, F, C]``."""
    target = batch.target_embeddings
    if latents is not None:
        added = model.gpt_layer(latents)
        target = target + (added if latents_kept is None else added * latents_kept[:, None, None])
    regulate = model.length_regulator
    prompt = regulate(batch.prompt_embeddings, batch.prompt_lens, batch.prompt_codes, batch.prompt_frames)
    target = regulate(target, batch.target_lens, batch.target_codes, batch.target_frames)
    return join_rows(prompt, batch.prompt_lens, target, batch.target_lens, batch.mel.shape[2])


def draw_times(rows: int, generator: torch.Generator) -> Tensor:
    """Flow times ``[B]``, spread evenly and then drawn towards the noise.

    Log-mels are several times larger than the noise, so that most is decided early.
    """
    device = generator.device
    order, shift = (torch.rand(size, generator=generator, device=device) for size in (rows, 1))
    even = order.argsort() + shift
    return 1 - torch.cos(even / rows * math.pi / 2)


def flow_loss(model: S2Mel, batch: S2MelBatch, mu: Tensor, t: Tensor, noise: Tensor, known: Tensor) -> Tensor:
    """Mean squared error of the velocity in the targets' frames.

    Args:
        mu: ``[B, F, C]`` conditions.
        t: ``[B]`` flow times.
        noise: like the mel.
        known: ``[B]``, 1 where the estimator may know the conditions and 0 where it must do without.
    """
    speech = batch.speech
    state = torch.lerp(noise, batch.mel, t[:, None, None]) * speech
    row = known[:, None, None]
    velocity = model.estimator(
        state, batch.prompt_mel * row, batch.x_lens, t, batch.style * known[:, None], mu * row, edges=batch.x_lens
    )
    error = (velocity.float() - (batch.mel - noise)).square() * speech
    return error.sum() / (speech.sum() * error.shape[1])


class TrainStep:
    """One step of the flow as a function of tensors alone, so that it can be captured as a CUDA graph."""

    def __init__(self, model: S2Mel, peak_lr: float, device: torch.device) -> None:
        self.model, self.device = model, device
        # Draws the mel from the conditions alone, in the first stage only: they then soon say what is to be heard.
        self.sketch = nn.Linear(model.estimator.cond_projection.in_features, model.estimator.mels).to(device)
        self.sketch.load_state_dict({"bias": model.estimator.conv2.bias}, strict=False)
        parts = nn.ModuleList((model, self.sketch))
        self.weights: list[Tensor] = list(parts.parameters())
        self.optimizer = torch.optim.AdamW(
            parameter_groups(parts, peak_lr), betas=(0.9, 0.98), fused=True, capturable=device.type == "cuda"
        )

    def compute(
        self, noise: Tensor, t: Tensor, known: Tensor, latents_kept: Tensor, *given: Tensor,
        prompt_frames: int, target_frames: int,
    ) -> Figures:  # fmt: skip
        """Forward, backward and optimiser.

        Args:
            noise, t, known: As for ``flow_loss``.
            latents_kept: ``[B]``, 1 where the latents count and 0 where they are left out.
            given: The tensors of a batch and, in the second stage, the latents of its targets.
            prompt_frames, target_frames: The widths of the batch.
        """
        count = len(fields(S2MelBatch)) - 2
        batch = S2MelBatch(*given[:count], prompt_frames=prompt_frames, target_frames=target_frames)
        latents = given[count] if len(given) > count else None
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):
            mu = conditions(self.model, batch, latents, latents_kept)
            loss = flow_loss(self.model, batch, mu, t, noise, known)
            figures = {"loss": loss}
            if latents is None:
                drawn = self.sketch(mu).float().transpose(1, 2)
                error = ((drawn - batch.mel).square() * batch.speech).sum()
                figures["sketch"] = error / (batch.speech.sum() * drawn.shape[1])
                loss = loss + SKETCH_WEIGHT * figures["sketch"]
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.weights, MAX_NORM)
        step_unless_broken(self.optimizer, [norm])
        return {name: value.detach() for name, value in (figures | {"norm": norm}).items()}


def step_inputs(batch: S2MelBatch, latents: Tensor | None, generator: torch.Generator) -> list[Tensor]:
    """The tensors of ``TrainStep.compute``: chance first, then the batch, then the latents."""
    rows, device = len(batch.mel), generator.device
    chance = torch.rand(2, rows, generator=generator, device=device)
    known, latents_kept = (chance[0] >= NO_CONDITIONS).float(), (chance[1] >= NO_LATENTS).float()
    noise = torch.randn(batch.mel.shape, generator=generator, device=device)
    given = [noise, draw_times(rows, generator), known, latents_kept, *batch.tensors()]
    return given if latents is None else [*given, latents]


@dataclass(frozen=True)
class HeldOut:
    """Fixed batches of voices and sentences that are never trained on, behind short and behind long prompts."""

    batches: dict[str, list[tuple[S2MelBatch, Tensor | None]]]

    @classmethod
    def draw(cls, source: S2MelBatches, latents: Latents | None, limit: int) -> HeldOut:
        targets = np.random.default_rng(0).permutation(source.usable)[:limit]
        targets = targets[np.argsort(source.length[targets])]
        batches: dict[str, list[tuple[S2MelBatch, Tensor | None]]] = {}
        for name, prompt_s in PROMPTS_S.items():
            batches[name] = []
            for part in np.array_split(targets, max(1, len(targets) // SOLVED_UTTERANCES)):
                rows, told = source.draw_others(part, prompt_s), None
                if latents is not None:
                    rows, told = latents(rows)
                if len(rows):
                    batches[name].append((source.gather(rows), told))
        return cls(batches)

    @torch.no_grad()
    def losses(self, model: S2Mel) -> dict[str, float]:
        """The training loss, with conditions, at fixed times and noise."""
        figures = {}
        for name, batches in self.batches.items():
            total = 0.0
            for batch, latents in batches:
                generator = torch.Generator(batch.mel.device).manual_seed(0)
                noise = torch.randn(batch.mel.shape, generator=generator, device=batch.mel.device)
                t = draw_times(len(noise), generator)
                with torch.autocast(noise.device.type, torch.bfloat16):
                    mu = conditions(model, batch, latents)
                    total += float(flow_loss(model, batch, mu, t, noise, torch.ones_like(t)))
            figures[f"loss_{name}"] = total / max(1, len(batches))
        return figures

    @torch.no_grad()
    def mel_errors(self, model: S2Mel, config: ModelConfig) -> dict[str, float]:
        """Mean absolute error of the mel after a whole integration as at inference, in nepers."""
        figures = {}
        for name, batches in self.batches.items():
            batch, latents = batches[len(batches) // 2]
            generator = torch.Generator(batch.mel.device).manual_seed(0)
            noise = torch.randn(batch.mel.shape, generator=generator, device=batch.mel.device)
            mel = solve(
                model.estimator,
                noise,
                conditions(model, batch, latents),
                batch.prompt_mel[..., : batch.prompt_frames],
                batch.style,
                steps=config.s2mel.steps,
                cfg_rate=config.s2mel.cfg_rate,
                x_lens=batch.x_lens,
                prompt_lens=batch.prompt_lens,
            )
            error = (mel - batch.mel).abs() * batch.speech
            figures[f"mel_l1_{name}"] = float(error.sum() / (batch.speech.sum() * mel.shape[1]))
        return figures


def flow_arguments(description: str | None, minutes: float, **extra: Any) -> argparse.Namespace:
    """The options that all trainings of the flow share, and ``extra`` ones, of which ``stage`` is one."""
    shared = {"gpt": "", "init": "", "tokens": "", "graph": 1, "heldout": HELDOUT_UTTERANCES}
    options = arguments(description, minutes, **shared, **extra)
    if options.stage not in RESULT:
        raise SystemExit(f"--stage is one of {', '.join(RESULT)}, not {options.stage!r}")
    return options


def open_splits(
    options: argparse.Namespace, config: ModelConfig, device: torch.device
) -> list[tuple[S2MelBatches, Latents | None]]:
    """What there is to train on and what is held out; with latents in the stage that hears them."""
    sources = [open_split(split, options, config, device) for split in ("train", "heldout")]
    hears = options.stage == "latents"
    return [(source, open_latents(source, options, config) if hears else None) for source in sources]


def open_split(split: str, options: argparse.Namespace, config: ModelConfig, device: torch.device) -> S2MelBatches:
    """Everything of one split, on the device."""
    data = SpeechData(options.data, device, split)  # type: ignore[arg-type]
    codec = SemanticCodec(config.semantic_codec)
    codec.load_state_dict(load_file(options.out / "semantic_codec.safetensors"))
    codec.eval().requires_grad_(False).to(device)
    styles = load_styles(options.out, device, split)  # type: ignore[arg-type]
    return S2MelBatches(data, Semantics(options.out, device, split), styles, codec, config.s2mel, options.seed)


def open_latents(source: S2MelBatches, options: argparse.Namespace, config: ModelConfig) -> Latents:
    """The finished language model over one split."""
    gpt = UnifiedVoice(config.gpt)
    gpt.load_state_dict(load_file(Path(options.gpt) if options.gpt else options.out / "gpt.safetensors"))
    gpt.eval().requires_grad_(False).to(source.device)
    tokens = Path(options.tokens) if options.tokens else options.data / "tokens.npz"
    batches = GPTBatches(source.data, source.semantics, tokens, config.gpt, source.device, options.seed)
    return Latents(gpt, batches, source.target_width)


def endless(
    source: S2MelBatches, latents: Latents | None, batch_frames: int
) -> Iterator[tuple[S2MelBatch, Tensor | None]]:
    """Epoch after epoch."""
    while True:
        for rows in source.epoch(batch_frames):
            told = None
            if latents is not None:
                rows, told = latents(rows)
            if len(rows):
                yield source.gather(rows, degraded=bool(source.random.random() < DEGRADED_PROMPTS)), told


def main() -> None:
    options = flow_arguments(__doc__, minutes=10.0, stage="codes", peak_lr=0.0, batch_frames=32768)
    device = device_for(options.smoke)
    torch.manual_seed(options.seed)
    config = load_model_config(options.config)
    (train, train_latents), (heldout, heldout_latents) = open_splits(options, config, device)
    model = S2Mel(config.s2mel)
    if options.init:
        model.load_state_dict(load_file(options.init))
        begin_projection(model)
    elif options.stage == "latents":
        model.load_state_dict(load_file(options.out / f"{RESULT['codes']}.safetensors"))
    else:
        initialise(model, train.mel.frames[:1_000_000].cpu())
    model.to(device)
    averaged = copy.deepcopy(model).requires_grad_(False).eval()
    training = TrainStep(model, options.peak_lr or PEAK_LR[options.stage], device)
    parts = {"model": model, "averaged": averaged, "sketch": training.sketch}
    loop = Loop(RESULT[options.stage], options, parts, training.optimizer)
    if options.resume and loop.step:  # draw other batches than those seen
        train.seed(options.seed + loop.step)
    fixed = HeldOut.draw(heldout, heldout_latents, 4 if options.smoke else options.heldout)
    loop.log.info("%d utterances to train on, %d mel frames", len(train.usable), len(train.mel.frames))
    loop.log.info("widths of the batches: %s", " ".join(map(str, train.widths)))
    take = trainable_step(training.compute, training.optimizer, device, loop.log.info, graphed=bool(options.graph))
    stream = endless(train, train_latents, 2000 if options.smoke else options.batch_frames)
    evaluations = 0
    for step in loop.steps():
        batch, latents = next(stream)
        figures = take(*step_inputs(batch, latents, train.generator), **batch.widths)
        average_into(averaged, model, step)
        loop.report(**figures, rows=float(len(batch.mel)), frames=float(batch.mel.shape[0] * batch.mel.shape[2]))
        if loop.evaluation_due():
            evaluations += 1
            evaluate(loop, fixed, averaged, config, whole=evaluations % SOLVE_EVERY_EVALUATIONS == 0)
    evaluate(loop, fixed, averaged, config, whole=True)
    save_weights(options.out / f"{RESULT[options.stage]}.safetensors", averaged.state_dict())


def evaluate(loop: Loop, heldout: HeldOut, averaged: S2Mel, config: ModelConfig, *, whole: bool) -> None:
    """Log the held-out figures of the averaged weights; ``whole`` integrations take a second or so."""
    figures = heldout.losses(averaged)
    if whole:
        figures |= heldout.mel_errors(averaged, config)
    loop.log.info("held out: %s", "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
