"""All networks of one model, loaded together (spec 2.3). The only place that knows which file feeds which network."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from indextts.checkpoints import ModelFiles, all_finite, load_strictly, read_tensors, section, without_allocating
from indextts.config import ModelConfig
from indextts.errors import CheckpointError, ConfigError
from indextts.memory import return_freed_memory
from indextts.models import s2mel as s2mel_module
from indextts.models import semantic_codec as codec_module
from indextts.models.bigvgan import BigVGAN
from indextts.models.campplus import CAMPPlus
from indextts.models.gpt import UnifiedVoice
from indextts.models.s2mel import S2Mel
from indextts.models.semantic_codec import SemanticCodec
from indextts.models.semantic_encoder import SemanticEncoder
from indextts.models.weight_norm import fold_weight_norm


@dataclass(frozen=True)
class Models:
    """The networks and tables of one model, on one device, in evaluation mode."""

    config: ModelConfig
    device: torch.device
    semantic_encoder: SemanticEncoder
    semantic_codec: SemanticCodec
    style_encoder: CAMPPlus
    gpt: UnifiedVoice
    s2mel: S2Mel
    vocoder: BigVGAN
    speaker_matrix: Tensor  # [sum(emo_num), style dim]
    emotion_matrix: Tensor  # [sum(emo_num), model_dim]

    def networks(self) -> dict[str, nn.Module]:
        """The networks by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, nn.Module)}


Convert = Callable[[str, nn.Module], object]
"""Is given each network by its name, ready but for its place, to change the precision of its weights."""


def build_networks(config: ModelConfig, convert: Convert | None = None) -> dict[str, nn.Module]:
    """The empty networks; under ``without_allocating`` or on the meta device this costs nothing.

    Args:
        convert: Called with each network before the next one is built.

    Raises:
        ConfigError: a network cannot have the sizes of the configuration.
    """
    sections: dict[str, tuple[Callable[[Any], nn.Module], Any]] = {
        "semantic_encoder": (SemanticEncoder, config.w2v_bert),
        "semantic_codec": (SemanticCodec, config.semantic_codec),
        "style_encoder": (CAMPPlus, config.s2mel.style_encoder),
        "gpt": (UnifiedVoice, config.gpt),
        "s2mel": (S2Mel, config.s2mel),
        "vocoder": (BigVGAN, config.vocoder),
    }
    nets = {}
    for name, (build, sizes) in sections.items():
        try:
            nets[name] = build(sizes)
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"[:300]
            raise ConfigError(f"the {name} network cannot have the configured sizes ({reason})") from error
        if convert is not None:
            convert(name, nets[name])
    return nets


def load_models(
    config: ModelConfig,
    files: ModelFiles,
    device: torch.device,
    convert: Convert | None = None,
    *,
    in_main_memory: bool = False,
) -> Models:
    """Fill every network from its file, in float32 and strictly, fold weight norms, and move all to ``device``.

    Only what ``convert`` makes of the weights gets there. ``in_main_memory`` leaves the networks where they are, for
    somebody who has not the room for all of them at once.

    Raises:
        CheckpointError: a file is damaged or does not fit the configuration.
    """
    with without_allocating():
        nets = build_networks(config)
    fill(nets, config, files)
    for name, net in nets.items():
        fold_weight_norm(net).eval().requires_grad_(False)
        if convert is not None:
            convert(name, net)
        net.to("cpu" if in_main_memory else device)
    rows = sum(config.emo_num)
    return Models(
        config=config,
        device=device,
        speaker_matrix=_table(files.spk_matrix, rows, config.s2mel.style_encoder.dim).to(device),
        emotion_matrix=_table(files.emo_matrix, rows, config.gpt.model_dim).to(device),
        **nets,  # type: ignore[arg-type]
    )


def fill(nets: dict[str, nn.Module], config: ModelConfig, files: ModelFiles) -> None:
    """Load the official or the bundled files into empty networks (spec 2.3).

    Raises:
        CheckpointError: what is wrong with all of the files, not with the first alone.
    """
    unused_layers = tuple(f"encoder.layers.{n}.*" for n in range(config.w2v_bert.output_layer, 64))
    sources: dict[str, tuple[Path, Callable[[], dict[str, Tensor]], tuple[str, ...]]] = {
        "semantic_encoder": (
            files.w2v_bert, lambda: read_tensors(files.w2v_bert) | _statistics(files.w2v_stat), unused_layers,
        ),
        "semantic_codec": (
            files.semantic_codec, lambda: read_tensors(files.semantic_codec), codec_module.UNUSED_KEYS,
        ),
        "style_encoder": (files.campplus, lambda: read_tensors(files.campplus), ()),
        "gpt": (files.gpt, lambda: section(read_tensors(files.gpt), "model"), ()),
        "s2mel": (files.s2mel, lambda: _s2mel_tensors(files.s2mel), s2mel_module.UNUSED_KEYS),
        "vocoder": (files.bigvgan, lambda: section(read_tensors(files.bigvgan), "generator"), ()),
    }  # fmt: skip
    problems = []
    for name, (path, read, ignored) in sources.items():
        try:
            load_strictly(nets[name], read(), path, ignored)
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError("; ".join(problems))


def _statistics(path: Path) -> dict[str, Tensor]:
    stats = read_tensors(path)
    if set(stats) != {"mean", "var"}:
        raise CheckpointError(f"{path} should hold mean and var, not {', '.join(sorted(stats)[:10]) or 'nothing'}")
    return stats


def _s2mel_tensors(path: Path) -> dict[str, Tensor]:
    tensors = section(read_tensors(path), "net")
    return {key.replace(".module.", ".", 1): value for key, value in tensors.items()}


def check_vocabulary(size: int, config: ModelConfig, path: Path) -> None:
    """Whether the language model knows every token of the vocabulary; else its ids would point outside the network.

    Raises:
        CheckpointError: it does not, so the file is another model's.
    """
    if size > config.gpt.number_text_tokens:
        raise CheckpointError(
            f"{path} has {size} tokens and the language model {config.gpt.number_text_tokens}: they are of two models"
        )


def _table(path: Path, rows: int, columns: int) -> Tensor:
    """A file that holds one matrix of a known shape."""
    tensors = list(read_tensors(path).values())
    if len(tensors) != 1 or tuple(tensors[0].shape) != (rows, columns):
        shapes = [list(t.shape) for t in tensors]
        raise CheckpointError(f"{path} should hold one matrix [{rows}, {columns}], not {shapes[:5]}")
    table = tensors[0].float()
    if not all_finite(table):
        raise CheckpointError(f"{path} is damaged: NaN or infinite numbers in it")
    return table


def release_memory() -> None:
    """Give memory of networks that nobody holds any more back to the driver and to the operating system."""
    gc.collect()  # modules and their hooks refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return_freed_memory()
