"""Train the semantic encoder of the bundled voice model: from any recording to what is said and how.

    python -m training.train_semantic_encoder --data DATA --out OUT [--minutes 2.5] [--resume]

The encoder sees degraded speech and, through linear heads that are thrown away, names the sound of every frame,
its pitch relative to the voice and its energy. An adversary that guesses the voice pushes timbre out of the
embedding. ``--init FILE`` goes on from earlier weights. Writes ``OUT/semantic_encoder.safetensors`` and
``OUT/wav2vec2bert_stats.safetensors``, the mean and variance of the embedding over the training data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from indextts.audio import semantic_features
from indextts.config import W2VBertConfig
from indextts.config_file import load_model_config
from indextts.models.semantic_encoder import SemanticEncoder
from training.augment import augment
from training.dataset import SpeechData
from training.frames import Crops, CropSampler, FrameHeads, FrameLabels, weighted
from training.graphs import Figures, step_unless_broken, trainable_step
from training.loop import Loop, arguments, device_for, save_weights

NAME = "semantic_encoder"
CROPS_S = (1.5, 2.5, 2.5, 4.0, 8.0)
BATCH_S = 640.0
LEARNING_RATE = 1.5e-3
MAX_GRADIENT_NORM = 1.0
STATISTICS_BATCHES = 24


class VoiceAdversary(nn.Module):
    """Guesses the voice from the mean and spread of an embedding; its gradient reaches the encoder reversed."""

    def __init__(self, dim: int, num_voices: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2 * dim, 256), nn.GELU(), nn.Linear(256, num_voices))

    def loss(self, hidden: Tensor, valid: Tensor, voice: Tensor, strength: Tensor) -> Tensor:
        """Cross-entropy of the guess; ``strength`` scales what comes back to ``hidden [B, T, D]``."""
        # Value: hidden. Gradient: minus strength times that of hidden.
        hidden = (1 + strength) * hidden.detach() - strength * hidden
        weight = valid[..., None] / valid.sum(1).clamp(min=1)[:, None, None]
        mean = (hidden * weight).sum(1)
        spread = (((hidden - mean[:, None]).square() * weight).sum(1) + 1e-5).sqrt()
        return F.cross_entropy(self.net(torch.cat([mean, spread], -1)).float(), voice)


class EncoderStep:
    """One step of encoder, heads and adversary, which can be captured as a CUDA graph.

    Attributes:
        parts: the modules that learn.
        optimizer: of them all.
    """

    def __init__(self, encoder: SemanticEncoder, heads: FrameHeads, adversary: VoiceAdversary) -> None:
        self.encoder, self.heads, self.adversary = encoder, heads, adversary
        self.parts: dict[str, nn.Module] = {"encoder": encoder, "heads": heads, "adversary": adversary}
        self.weights = [p for part in self.parts.values() for p in part.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.weights,
            LEARNING_RATE,
            (0.9, 0.98),
            weight_decay=0.01,
            fused=True,
            capturable=self.weights[0].is_cuda,
        )

    def compute(self, features: Tensor, mask: Tensor, voice: Tensor, strength: Tensor, *labels: Tensor) -> Figures:
        """Learn from one batch.

        Args:
            features: ``[B, T, 160]`` of degraded recordings.
            mask: ``[B, T]``, 0 for padding.
            voice: ``[B]``.
            strength: scalar, how much the adversary counts for the encoder.
            labels: what :class:`FrameLabels` holds.

        Returns:
            The losses and the norm of the gradient.
        """
        known = FrameLabels(*labels)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(features.device.type, torch.bfloat16, cache_enabled=False):
            hidden = self.encoder(features, mask)
            losses = self.heads.losses(hidden, known)
            guess = self.adversary.loss(hidden.float(), known.valid, voice, strength)
        (weighted(losses) + guess).backward()
        norm = nn.utils.clip_grad_norm_(self.weights, MAX_GRADIENT_NORM)
        step_unless_broken(self.optimizer, [norm])
        figures = losses | {"voice": guess, "norm": norm}
        return {name: value.detach() for name, value in figures.items()}


def mask_features(features: Tensor, generator: torch.Generator) -> Tensor:
    """SpecAugment: set up to two stretches of time and one band of each row ``[B, T, 160]`` to the mean."""
    batch, frames, width = features.shape
    bands = features.view(batch, frames, 2, width // 2)

    def stretch(size: int, longest: int) -> Tensor:
        low, long = torch.rand(2, batch, 1, generator=generator, device=features.device)
        index = torch.arange(size, device=features.device)
        return (index >= low * size) & (index < low * size + long * longest)

    hidden_time = stretch(frames, 12) | stretch(frames, 12)
    hidden_band = stretch(width // 2, 16)
    keep = ~(hidden_time[:, :, None, None] | hidden_band[:, None, None, :])
    return (bands * keep).view_as(features)


def load_encoder(out: Path, config: W2VBertConfig, device: torch.device) -> SemanticEncoder:
    """The trained encoder with its statistics, frozen."""
    encoder = SemanticEncoder(config)
    weights = load_file(out / f"{NAME}.safetensors") | load_file(out / "wav2vec2bert_stats.safetensors")
    encoder.load_state_dict(weights)
    return encoder.eval().requires_grad_(False).to(device)


@torch.no_grad()
def evaluate(encoder: SemanticEncoder, heads: FrameHeads, batches: list[tuple[Crops, Tensor]]) -> dict[str, float]:
    """Figures on prepared batches of clean and degraded waves."""
    sums: dict[str, float] = {}
    encoder.eval()
    for crops, degraded in batches:
        for kind, wave in (("clean", crops.wave), ("augmented", degraded)):
            hidden = encoder(*semantic_features(wave, crops.num_samples))
            for key, value in heads.metrics(hidden, crops.labels).items():
                name = f"{kind}_{key}"
                sums[name] = sums.get(name, 0.0) + value.item() / len(batches)
    encoder.train()
    return sums


class Heldout:
    """Crops of voices and sentences that the training never hears, clean and degraded.

    Attributes:
        batches: the same at every evaluation, until there is more speech; none while there is none.
    """

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        self.data = SpeechData(options.data, device, "heldout")
        self.number, self.batch_s = (1, 16.0) if options.smoke else (2, 256.0)
        self.batches = self._draw()

    def refresh(self) -> None:
        """Take in newly generated speech."""
        if self.data.refresh():
            self.batches = self._draw()

    def _draw(self) -> list[tuple[Crops, Tensor]]:
        if not len(self.data):
            return []
        sampler = CropSampler(self.data, seed=1)
        batches = [sampler.draw(4.0, self.batch_s) for _ in range(self.number)]
        return [(crops, augment(crops.wave, 16000, sampler.generator)) for crops in batches]


@torch.no_grad()
def statistics(encoder: SemanticEncoder, sampler: CropSampler, batches: int, batch_s: float) -> dict[str, Tensor]:
    """Mean and variance of the embedding over clean training speech."""
    encoder.eval()
    frames = []
    for _ in range(batches):
        crops = sampler.draw(8.0, batch_s)
        hidden = encoder(*semantic_features(crops.wave, crops.num_samples))
        frames.append(hidden[crops.labels.valid])
    values = torch.cat(frames).double()
    return {"mean": values.mean(0).float(), "var": values.var(0).float()}


def main() -> None:
    options = arguments(__doc__, minutes=2.5, adversary=0.1, init="")
    device = device_for(options.smoke)
    torch.manual_seed(options.seed)
    config = load_model_config(options.config)
    sampler = CropSampler(SpeechData(options.data, device), options.seed)
    heldout = Heldout(options, device)
    encoder = SemanticEncoder(config.w2v_bert)
    if options.init:
        statistics_to_come = {"mean": encoder.mean, "var": encoder.var}
        encoder.load_state_dict(load_file(options.init) | statistics_to_come)
    encoder.to(device)
    heads = FrameHeads(config.w2v_bert.hidden_size).to(device)
    adversary = VoiceAdversary(config.w2v_bert.hidden_size, sampler.data.num_voices).to(device)
    learner = EncoderStep(encoder, heads, adversary)
    loop = Loop(NAME, options, learner.parts, learner.optimizer)
    take = trainable_step(learner.compute, learner.optimizer, device, loop.log.info)
    batch_s = 16.0 if options.smoke else BATCH_S

    for step in loop.steps():
        crop_s = CROPS_S[torch.randint(len(CROPS_S), (1,)).item()]  # type: ignore[call-overload]
        crops = sampler.draw(crop_s, batch_s)
        features, mask = semantic_features(augment(crops.wave, 16000, sampler.generator), crops.num_samples)
        features = mask_features(features, sampler.generator)
        strength = torch.full((), options.adversary * min(1.0, 2 * loop.progress), device=device)
        loop.report(**take(features, mask, crops.voice, strength, *crops.labels))
        if loop.evaluation_due():
            sampler.refresh()
            heldout.refresh()
            figures = evaluate(encoder, heads, heldout.batches)
            loop.log.info("  step %d, held out: %s", step, _text(figures))

    figures = evaluate(encoder, heads, heldout.batches)
    loop.log.info("held out at the end: %s", _text(figures))
    stats = statistics(encoder, sampler, 1 if options.smoke else STATISTICS_BATCHES, batch_s)
    encoder_weights = {k: v for k, v in encoder.state_dict().items() if k not in stats}
    save_weights(options.out / "wav2vec2bert_stats.safetensors", stats)
    save_weights(options.out / f"{NAME}.safetensors", encoder_weights)


def _text(figures: dict[str, float]) -> str:
    return "  ".join(f"{key} {value:.3f}" for key, value in figures.items())


if __name__ == "__main__":
    main()
