"""Run the finished semantic encoder and codec over all speech, for the trainings that follow.

    python -m training.extract_semantics --data DATA --out OUT

Writes ``OUT/semantics/<split>/``, which :class:`training.semantics.Semantics` reads. Codes and clean embeddings
are computed in float32, as at inference: the codes must be those that the bundled model would give.
"""

from __future__ import annotations

import argparse
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from indextts.audio import num_semantic_frames, resample_22k_to_16k, semantic_features
from indextts.config_file import load_model_config
from indextts.models.semantic_codec import SemanticCodec
from indextts.models.semantic_encoder import SemanticEncoder
from training.augment import augment
from training.dataset import SAMPLE_RATE_HZ, SpeechData
from training.frames import MIN_SAMPLES, batches_by_length
from training.semantics import SemanticsWriter
from training.train_semantic_codec import embed
from training.train_semantic_encoder import load_encoder

BATCH_S = 3000.0
log = logging.getLogger(__name__)


@torch.inference_mode()
def extract(
    data: SpeechData, encoder: SemanticEncoder, codec: SemanticCodec, out: Path, batch_s: float, seed: int
) -> None:
    """Write codes, clean and augmented embeddings of one split."""
    begin = time.monotonic()
    num_samples = data.num_samples(torch.arange(len(data)))
    num_samples_16k = samples_at_16k(num_samples)
    length = num_semantic_frames(num_samples_16k).cpu().numpy()
    dim, codebook_size = encoder.mean.numel(), codec.quantizer.first.codebook.num_embeddings
    writer = SemanticsWriter(out, data, length, dim, codebook_size)
    generator = torch.Generator(data.device).manual_seed(seed)
    for indices, batch_samples in batches_by_length(num_samples, batch_s):
        wave = resample_22k_to_16k(data.wave(indices, 0, batch_samples[0]))
        wave = torch.nn.functional.pad(wave, (0, max(0, MIN_SAMPLES - wave.shape[1])))
        lengths = num_samples_16k[indices]
        clean = encoder.normalize(encoder(*semantic_features(wave, lengths)))
        degraded = augment(wave, 16000, generator)
        augmented = embed(encoder, *semantic_features(degraded, lengths))  # a prompt: its last bits do not matter
        writer.write(indices, quantize_rows(codec, clean, length[indices.cpu().numpy()].tolist()), clean, augmented)
    usage = torch.bincount(writer.codes.long(), minlength=codebook_size).double()
    share = usage / usage.sum()
    perplexity = torch.exp(-(share * torch.log(share.clamp(min=1e-10))).sum()).item()
    computed_s, speech_s = time.monotonic() - begin, num_samples.sum().item() / SAMPLE_RATE_HZ
    writer.finish()
    log.info(
        "%s: %d utterances, %.2f hours, %d of %d codes used, perplexity %.0f; computed in %.1f s (%.0f times as fast"
        " as speech), written in %.1f s",
        data.split, len(data), speech_s / 3600, int((usage > 0).sum()), codebook_size, perplexity, computed_s,
        speech_s / computed_s, time.monotonic() - begin - computed_s,
    )  # fmt: skip


def samples_at_16k(num_samples: Tensor) -> Tensor:
    """Lengths of utterances after resampling from 22.05 kHz, which rounds up, and padding."""
    return ((num_samples * 320 + 440) // 441).clamp(min=MIN_SAMPLES)


def quantize_rows(codec: SemanticCodec, embeddings: Tensor, lengths: list[int]) -> Tensor:
    """Codes ``[B, T]`` of padded rows ``[B, T, D]`` sorted by length, 0 in the padding.

    The codec's convolutions have no mask, and see zeros beyond the end of a recording: rows of the same length
    are quantised together, without their padding, so that each gets the codes that it would get alone.
    """
    codes = torch.zeros(embeddings.shape[:2], dtype=torch.int64, device=embeddings.device)
    first = 0
    for length, rows in groupby(lengths):
        same = slice(first, first + len(list(rows)))
        codes[same, :length] = codec.quantize(embeddings[same, :length])[0]
        first = same.stop
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
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    config = load_model_config(options.config)
    encoder = load_encoder(options.out, config.w2v_bert, device)
    codec = SemanticCodec(config.semantic_codec)
    codec.load_state_dict(load_file(options.out / "semantic_codec.safetensors"))
    codec.eval().to(device)
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:  # each reads all files
        splits = list(pool.map(lambda split: SpeechData(options.data, device, split), ("train", "heldout")))
    log.info("read the speech in %.1f s", time.monotonic() - begin)
    for data in splits:
        if len(data):
            extract(data, encoder, codec, options.out, 60.0 if options.smoke else BATCH_S, options.seed)


if __name__ == "__main__":
    main()
