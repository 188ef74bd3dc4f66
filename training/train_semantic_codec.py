"""Train the semantic codec of the bundled voice model: one code of 20 ms for what is said and how.

    python -m training.train_semantic_codec --data DATA --out OUT [--minutes 1.7] [--resume]

Needs the finished semantic encoder in ``OUT``. The quantised embedding must let a small decoder rebuild the clean
embedding, and linear heads name phone, pitch and energy; decoder and heads are thrown away. The codebook follows
the points that it stands for (running means on the unit sphere), starts from k-means, and dead codes are restarted.
Writes ``OUT/semantic_codec.safetensors``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indextts.audio import semantic_features
from indextts.config import SemanticCodecConfig
from indextts.config_file import load_model_config
from indextts.models.semantic_codec import ConvNeXtBackbone, SemanticCodec, VectorQuantizer
from indextts.models.semantic_encoder import SemanticEncoder
from training.augment import augment
from training.dataset import SpeechData
from training.frames import Crops, CropSampler, FrameHeads, FrameLabels, weighted
from training.graphs import Figures, step_unless_broken, trainable_step
from training.loop import Loop, arguments, device_for, save_weights
from training.train_semantic_encoder import MAX_GRADIENT_NORM, Heldout, load_encoder

NAME = "semantic_codec"
CROP_S = 4.0
BATCH_S = 512.0
LEARNING_RATE = 1.5e-3
COMMITMENT = 0.5
RECONSTRUCTION = 0.5
MORE_PHONE = 1.5  # on top of the encoder's weights: what a code cannot hold shall not be what is said
KMEANS_BATCHES = 4
KMEANS_ITERATIONS = 15


class CodebookLearner(nn.Module):
    """Keeps the rows of a codebook at the running means of the unit vectors that are assigned to them."""

    counts: Tensor  # [K]
    sums: Tensor  # [K, d]

    def __init__(self, quantizer: VectorQuantizer, decay: float = 0.98, dead_share: float = 0.1) -> None:
        super().__init__()
        size, dim = quantizer.codebook.weight.shape
        self._rows = quantizer.codebook.weight  # shared with the codec, and no parameter of the optimiser
        self.decay, self.dead_share = decay, dead_share
        self.register_buffer("counts", torch.zeros(size))
        self.register_buffer("sums", torch.zeros(size, dim))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    @property
    def perplexity(self) -> Tensor:
        """Effective number of codes in use."""
        share = self.counts / self.counts.sum().clamp(min=1)
        return torch.exp(-(share * torch.log(share.clamp(min=1e-10))).sum())

    @torch.no_grad()
    def start(self, points: Tensor) -> None:
        """Spherical k-means over ``[P, d]``."""
        points, size = F.normalize(points.float(), dim=-1), len(self._rows)
        rows = points[torch.randint(len(points), (size,), device=points.device)]
        for _ in range(KMEANS_ITERATIONS):
            sums = torch.zeros_like(rows).index_add_(0, (points @ rows.T).argmax(-1), points)
            strays = points[torch.randint(len(points), (size,), device=points.device)]
            rows = F.normalize(torch.where(sums.norm(dim=-1, keepdim=True) > 1e-6, sums, strays), dim=-1)
        self.counts.copy_(torch.bincount((points @ rows.T).argmax(-1), minlength=size))
        self.counts.clamp_(min=self.counts.mean())
        self.sums.copy_(rows * self.counts[:, None])
        self._rows.copy_(rows)
        self.get_buffer("started").fill_(True)

    @torch.no_grad()
    def update(self, points: Tensor, codes: Tensor, valid: Tensor) -> None:
        """Move the rows towards the points that have their codes; rows nobody uses jump to random points.

        Args:
            points: ``[P, d]``.
            codes: ``[P]``.
            valid: ``[P]`` bool, which of them count. The host need not know how many they are.
        """
        points, size = F.normalize(points.float(), dim=-1), len(self._rows)
        weight = valid.float()
        new = torch.zeros_like(self.counts).index_add_(0, codes, weight)
        self.counts.lerp_(new, 1 - self.decay)
        new = torch.zeros_like(self.sums).index_add_(0, codes, points * weight[:, None])
        self.sums.lerp_(new, 1 - self.decay)
        mean = self.counts.mean()
        dead = self.counts < self.dead_share * mean
        rank = valid.cumsum(0)  # the n-th valid point is the first of rank n
        drawn = (torch.rand(size, device=points.device) * rank[-1]).long() + 1
        strays = points[torch.searchsorted(rank, drawn).clamp(max=len(points) - 1)]
        self.counts.copy_(torch.where(dead, mean * 0.5, self.counts))
        self.sums.copy_(torch.where(dead[:, None], strays * self.counts[:, None], self.sums))
        self._rows.copy_(F.normalize(self.sums, dim=-1))


class CodecTask(nn.Module):
    """What the quantised embedding must be good for."""

    def __init__(self, config: SemanticCodecConfig) -> None:
        super().__init__()
        self.decoder = nn.Sequential(
            ConvNeXtBackbone(
                config.hidden_size, config.vocos_dim, config.vocos_intermediate_dim, config.vocos_num_layers
            ),
            nn.Linear(config.vocos_dim, config.hidden_size),
        )
        self.heads = FrameHeads(config.hidden_size)

    def reconstruction(self, quantized: Tensor, clean: Tensor, valid: Tensor) -> Tensor:
        """Mean squared error of the rebuilt clean embedding ``[B, T, D]``, whose variance is one."""
        error = (self.decoder(quantized.transpose(1, 2)).float() - clean).square().mean(-1)
        return (error * valid).sum() / valid.sum()


class CodecStep:
    """One step of codec, task and codebook, which can be captured as a CUDA graph.

    Attributes:
        parts: the modules that learn.
        optimizer: of codec and task; the codebook follows the points by itself.
    """

    def __init__(
        self, encoder: SemanticEncoder, codec: SemanticCodec, task: CodecTask, codebook: CodebookLearner
    ) -> None:
        self.encoder, self.codec, self.task, self.codebook = encoder, codec, task, codebook
        self.parts: dict[str, nn.Module] = {"codec": codec, "task": task, "codebook": codebook}
        self.weights = [p for part in (codec, task) for p in part.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.weights,
            LEARNING_RATE,
            (0.9, 0.98),
            weight_decay=0.01,
            fused=True,
            capturable=self.weights[0].is_cuda,
        )

    def compute(self, features: Tensor, mask: Tensor, *labels: Tensor) -> Figures:
        """Learn from one batch.

        Args:
            features: ``[B + B // 2, T, 160]``, of clean recordings and of the first half of them degraded.
            mask: ``[B + B // 2, T]``, 0 for padding.
            labels: what :class:`FrameLabels` holds, of the B clean recordings.

        Returns:
            The losses, the norm of the gradient and the perplexity of the codes.
        """
        known, quantizer = FrameLabels(*labels), self.codec.quantizer.first
        rows = len(known.valid)
        embeddings = embed(self.encoder, features, mask)
        clean, inputs = embeddings[:rows], torch.cat([embeddings[rows:], embeddings[rows // 2 : rows]])
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(features.device.type, torch.bfloat16, cache_enabled=False):
            # The codebook lies on the unit sphere and lookup is by cosine: the length of a point is free.
            z_e = F.normalize(self.codec.project(inputs).float(), dim=1)
            codes = quantizer.encode(z_e)
            z_q = quantizer.lookup(codes)
            quantized = quantizer.out_project(z_e + (z_q - z_e).detach()).transpose(1, 2)
            reconstruction = self.task.reconstruction(quantized, clean, known.valid)
            losses = self.task.heads.losses(quantized, known)
        distance = (z_e - z_q).square().sum(1)
        commitment = (distance * known.valid).sum() / known.valid.sum()
        told = weighted(losses) + MORE_PHONE * losses["phone"]
        (RECONSTRUCTION * reconstruction + told + COMMITMENT * commitment).backward()
        norm = nn.utils.clip_grad_norm_(self.weights, MAX_GRADIENT_NORM)
        step_unless_broken(self.optimizer, [norm])
        self.codebook.update(z_e.detach().transpose(1, 2).flatten(0, 1), codes.flatten(), known.valid.flatten())
        figures = {"reconstruction": reconstruction, "commitment": commitment, **losses, "norm": norm}
        figures["perplexity"] = self.codebook.perplexity
        return {name: value.detach() for name, value in figures.items()}


@torch.no_grad()
def embed(encoder: SemanticEncoder, features: Tensor, mask: Tensor) -> Tensor:
    """Normalised embeddings ``[B, T, D]`` in float32, computed in bfloat16."""
    with torch.autocast(features.device.type, torch.bfloat16, cache_enabled=False):
        hidden = encoder(features, mask)
    return encoder.normalize(hidden.float())


@torch.no_grad()
def evaluate(
    encoder: SemanticEncoder,
    encoder_heads: FrameHeads,
    codec: SemanticCodec,
    task: CodecTask,
    batches: list[tuple[Crops, Tensor]],
) -> dict[str, float]:
    """What the heads read before and after the quantiser, and how stable the codes are."""
    sums: dict[str, float] = {}
    used = []
    for crops, degraded in batches:
        valid, codes_of = crops.labels.valid, {}
        for kind, wave in (("clean", crops.wave), ("augmented", degraded)):
            hidden = encoder(*semantic_features(wave, crops.num_samples))
            codes, quantized = codec.quantize(encoder.normalize(hidden))
            before = encoder_heads.metrics(hidden, crops.labels)
            after = task.heads.metrics(quantized, crops.labels)
            for key in before:
                sums[f"{kind}_{key}_before"] = sums.get(f"{kind}_{key}_before", 0.0) + before[key].item()
                sums[f"{kind}_{key}_after"] = sums.get(f"{kind}_{key}_after", 0.0) + after[key].item()
            codes_of[kind] = codes[valid]
        same = (codes_of["clean"] == codes_of["augmented"]).float().mean().item()
        sums["same_code_clean_augmented"] = sums.get("same_code_clean_augmented", 0.0) + same
        used.append(codes_of["clean"])
    figures = {key: value / len(batches) for key, value in sums.items()}
    if used:
        figures["codes_used"] = float(torch.cat(used).unique().numel())
    return figures


def points_of(codec: SemanticCodec, embeddings: Tensor, valid: Tensor) -> Tensor:
    """Projected embeddings of the valid frames, ``[P, d]``."""
    return codec.project(embeddings).transpose(1, 2)[valid]


def main() -> None:
    options = arguments(__doc__, minutes=1.7)
    device = device_for(options.smoke)
    torch.manual_seed(options.seed)
    config = load_model_config(options.config)
    sampler = CropSampler(SpeechData(options.data, device), options.seed)
    heldout = Heldout(options, device)
    encoder = load_encoder(options.out, config.w2v_bert, device)
    encoder_heads = FrameHeads(config.w2v_bert.hidden_size).to(device)
    trained = torch.load(options.out / "semantic_encoder.pt", map_location=device, weights_only=True)
    encoder_heads.load_state_dict(trained["parts"]["heads"])
    codec = SemanticCodec(config.semantic_codec).to(device)
    task = CodecTask(config.semantic_codec).to(device)
    codec.quantizer.first.codebook.requires_grad_(False)
    codebook = CodebookLearner(codec.quantizer.first).to(device)
    learner = CodecStep(encoder, codec, task, codebook)
    loop = Loop(NAME, options, learner.parts, learner.optimizer)
    take = trainable_step(learner.compute, learner.optimizer, device, loop.log.info)
    batch_s = 16.0 if options.smoke else BATCH_S

    if not codebook.get_buffer("started"):
        points = []
        for _ in range(KMEANS_BATCHES):
            crops = sampler.draw(CROP_S, batch_s)
            clean = embed(encoder, *semantic_features(crops.wave, crops.num_samples))
            points.append(points_of(codec, clean, crops.labels.valid).detach())
        codebook.start(torch.cat(points))

    for step in loop.steps():
        crops = sampler.draw(CROP_S, batch_s)
        half = len(crops.wave) // 2
        degraded = augment(crops.wave[:half], 16000, sampler.generator)
        num_samples = torch.cat([crops.num_samples, crops.num_samples[:half]])
        features = semantic_features(torch.cat([crops.wave, degraded]), num_samples)
        loop.report(**take(*features, *crops.labels))
        if loop.evaluation_due():
            sampler.refresh()
            heldout.refresh()
            _log(loop, step, evaluate(encoder, encoder_heads, codec.eval(), task, heldout.batches))
            codec.train()

    _log(loop, loop.step, evaluate(encoder, encoder_heads, codec.eval(), task, heldout.batches))
    save_weights(options.out / f"{NAME}.safetensors", codec.state_dict())


def _log(loop: Loop, step: int, figures: dict[str, float]) -> None:
    loop.log.info("  step %d, held out: %s", step, "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
