"""All networks of one model, loaded together (spec 2.3). The only place that knows which file feeds which network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from indextts.checkpoints import ModelFiles, load_strictly, read_tensors, section, without_allocating
from indextts.config import ModelConfig
from indextts.errors import CheckpointError, ConfigError
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


def build_networks(config: ModelConfig) -> dict[str, nn.Module]:
    """The empty networks; under ``without_allocating`` or on the meta device this costs nothing.

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
    return nets


def load_models(config: ModelConfig, files: ModelFiles, device: torch.device) -> Models:
    """Fill every network from its file, in float32 and strictly, fold weight norms, and move all to ``device``.

    Raises:
        CheckpointError: a file is damaged or does not fit the configuration.
    """
    with without_allocating():
        nets = build_networks(config)
    fill(nets, config, files)
    for net in nets.values():
        fold_weight_norm(net)
        net.eval().requires_grad_(False).to(device)
    rows = sum(config.emo_num)
    return Models(
        config=config,
        device=device,
        speaker_matrix=_table(files.spk_matrix, rows, config.s2mel.style_encoder.dim).to(device),
        emotion_matrix=_table(files.emo_matrix, rows, config.gpt.model_dim).to(device),
        **nets,  # type: ignore[arg-type]
    )


def fill(nets: dict[str, nn.Module], config: ModelConfig, files: ModelFiles) -> None:
    """Load the official or the bundled files into empty networks (spec 2.3)."""
    encoder = read_tensors(files.w2v_bert)
    stats = read_tensors(files.w2v_stat)
    if missing := {"mean", "var"} - set(stats):
        raise CheckpointError(f"{files.w2v_stat} has no {' and no '.join(sorted(missing))}")
    unused_layers = tuple(f"encoder.layers.{n}.*" for n in range(config.w2v_bert.output_layer, 64))
    load_strictly(nets["semantic_encoder"], encoder | stats, files.w2v_bert, unused_layers)
    codec = read_tensors(files.semantic_codec)
    load_strictly(nets["semantic_codec"], codec, files.semantic_codec, codec_module.UNUSED_KEYS)
    load_strictly(nets["style_encoder"], read_tensors(files.campplus), files.campplus)
    load_strictly(nets["gpt"], section(read_tensors(files.gpt), "model"), files.gpt)
    net = section(read_tensors(files.s2mel), "net")
    net = {key.replace(".module.", ".", 1): value for key, value in net.items()}
    load_strictly(nets["s2mel"], net, files.s2mel, s2mel_module.UNUSED_KEYS)
    load_strictly(nets["vocoder"], section(read_tensors(files.bigvgan), "generator"), files.bigvgan)


def _table(path: Path, rows: int, columns: int) -> Tensor:
    """A file that holds one matrix of a known shape."""
    tensors = list(read_tensors(path).values())
    if len(tensors) != 1 or tuple(tensors[0].shape) != (rows, columns):
        shapes = [list(t.shape) for t in tensors]
        raise CheckpointError(f"{path} should hold one matrix [{rows}, {columns}], not {shapes}")
    return tensors[0].float()
