"""Run the finished semantic encoder and codec over all speech, for the trainings that follow.

    python -m training.extract_semantics --data DATA --out OUT

Writes ``OUT/semantics/<split>/``, which :class:`training.semantics.Semantics` reads. Runs in float32, as at
inference: the codes must be those that the bundled model would give.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from indextts.audio import (
    num_semantic_frames,
    resample_22k_to_16k,
    semantic_features,
)
from indextts.config import load_model_config
from indextts.models.semantic_codec import SemanticCodec
from indextts.models.semantic_encoder import SemanticEncoder
from training.augment import augment
from training.dataset import SAMPLE_RATE_HZ, SpeechData
from training.frames import MIN_SAMPLES
from training.semantics import SemanticsWriter
from training.train_semantic_encoder import load_encoder

BATCH_S = 1500.0
log = logging.getLogger(__name__)


def batches_by_length(num_samples: Tensor, batch_s: float) -> Iterator[Tensor]:
    """Indices grouped so that a padded batch holds about ``batch_s`` seconds, longest first."""
    order = torch.argsort(num_samples, descending=True)
    lengths = num_samples[order].tolist()
    first = 0
    while first < len(order):
        rows = max(1, int(batch_s * SAMPLE_RATE_HZ / max(1, lengths[first])))
        yield order[first : first + rows]
        first += rows


@torch.inference_mode()
def extract(
    data: SpeechData, encoder: SemanticEncoder, codec: SemanticCodec, out: Path, batch_s: float, seed: int
) -> None:
    """Write codes, clean and augmented embeddings of one split."""
    # As torchaudio's resampler rounds: up.
    samples_16k = ((data.num_samples(range(len(data))) * 320 + 440) // 441).clamp(min=MIN_SAMPLES)
    dim, codebook_size = encoder.mean.numel(), codec.quantizer.first.codebook.num_embeddings
    writer = SemanticsWriter(out, data, num_semantic_frames(samples_16k).cpu().numpy(), dim, codebook_size)
    generator = torch.Generator(data.device).manual_seed(seed)
    usage = torch.zeros(codebook_size, device=data.device)
    begin = time.monotonic()
    for indices in batches_by_length(data.num_samples(range(len(data))), batch_s):
        wave = resample_22k_to_16k(data.wave(indices))
        wave = torch.nn.functional.pad(wave, (0, max(0, MIN_SAMPLES - wave.shape[1])))
        lengths = samples_16k[indices]
        clean = encoder.normalize(encoder(*semantic_features(wave, lengths)))
        degraded = augment(wave, 16000, generator)
        augmented = encoder.normalize(encoder(*semantic_features(degraded, lengths)))
        frames = num_semantic_frames(lengths)
        codes = quantize_rows(codec, clean, frames)
        inside = torch.arange(codes.shape[1], device=codes.device) < frames[:, None]
        usage += torch.bincount(codes[inside], minlength=codebook_size)
        writer.write(indices, codes, clean, augmented)
    writer.finish()
    share = usage / usage.sum()
    perplexity = torch.exp(-(share * torch.log(share.clamp(min=1e-10))).sum()).item()
    log.info(
        "%s: %d utterances, %.2f hours, %d of %d codes used, perplexity %.0f, %.0f s",
        data.split, len(data), data.length_s.sum().item() / 3600, int((usage > 0).sum()), codebook_size,
        perplexity, time.monotonic() - begin,
    )  # fmt: skip


def quantize_rows(codec: SemanticCodec, embeddings: Tensor, lengths: Tensor) -> Tensor:
    """Codes ``[B, T]`` of padded rows, 0 in the padding.

    The codec's convolutions have no mask, and see zeros beyond the end of a recording: rows of the same length
    are quantised together, without their padding, so that each gets the codes that it would get alone.
    """
    codes = torch.zeros(embeddings.shape[:2], dtype=torch.int64, device=embeddings.device)
    for length in lengths.unique().tolist():
        same = torch.nonzero(lengths == length)[:, 0]
        codes[same, :length] = codec.quantize(embeddings[same, :length])[0]
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the generated speech")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained weights, and of the result")
    parser.add_argument("--config", type=Path, default=Path("checkpoints/nano/config.yaml"))
    parser.add_argument("--smoke", action="store_true", help="on the CPU, in small batches")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = torch.device("cpu" if options.smoke else "cuda")
    config = load_model_config(options.config)
    encoder = load_encoder(options.out, config.w2v_bert, device)
    codec = SemanticCodec(config.semantic_codec)
    codec.load_state_dict(load_file(options.out / "semantic_codec.safetensors"))
    codec.eval().to(device)
    for split in ("train", "heldout"):
        data = SpeechData(options.data, device, split)
        if len(data):
            extract(data, encoder, codec, options.out, 60.0 if options.smoke else BATCH_S, options.seed)


if __name__ == "__main__":
    main()
