"""Where the model files are, and how their tensors get into the networks (spec 2).

Two layouts are understood: that of the official download (``gpt.pth``, ``s2mel.pth``, ... with the auxiliary models
under ``hf_cache/``) and the same with safetensors in place of pickles, as the bundled model has it. Tensors may be
stored as int8 with a companion ``<key>.scale`` (one scale per row); they are expanded on reading.
Nothing is half loaded: everything that is missing or does not fit is listed at once.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from indextts.config import ModelConfig
from indextts.config_file import load_model_config
from indextts.errors import CheckpointError
from indextts.manifest import record, write_manifest
from indextts.models.weight_norm import unfold_plain_weights
from indextts.resources import NANO_DIR as BUNDLED_DIR

logger = logging.getLogger(__name__)

# Auxiliary models: key -> (hub repository, its file, names below hf_cache/ in order of preference; spec 2.2).
AUXILIARY: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "w2v_bert": ("facebook/w2v-bert-2.0", "model.safetensors", ("w2v-bert-2.0/model.safetensors",)),
    "semantic_codec": (
        "amphion/MaskGCT",
        "semantic_codec/model.safetensors",
        ("semantic_codec_model.safetensors",),
    ),
    "campplus": (
        "funasr/campplus",
        "campplus_cn_common.bin",
        ("campplus_cn_common.bin", "campplus_cn_common.safetensors"),
    ),
    "bigvgan": (
        "nvidia/bigvgan_v2_22khz_80band_256x",
        "bigvgan_generator.pt",
        ("bigvgan/bigvgan_generator.pt", "bigvgan/bigvgan_generator.safetensors"),
    ),
}

DOWNLOAD_HINT = "`indextts download` fetches the official IndexTTS-2 files"

# What reading a damaged or a hostile file can end in.
UNREADABLE = (
    OSError, EOFError, KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError, MemoryError,
    SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip

# Buffers whose values follow from the configuration: a file may carry them or not.
DETERMINISTIC_BUFFERS = (
    "*.pos_enc.pe", "*input_pos", "*.num_batches_tracked", "*.freqs", "*.filter",
)  # fmt: skip


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model. ``qwen_emotion`` may not exist: it is optional."""

    root: Path
    config_path: Path
    bpe_model: Path
    gpt: Path
    s2mel: Path
    w2v_stat: Path
    spk_matrix: Path
    emo_matrix: Path
    w2v_bert: Path
    semantic_codec: Path
    campplus: Path
    bigvgan: Path
    qwen_emotion: Path
    glossary: Path
    bundled: bool

    def paths(self) -> list[Path]:
        """Every file that loading reads, those of the emotion model included, if it is there."""
        files = [getattr(self, field.name) for field in fields(self) if field.name not in ("root", "bundled")]
        emotion = self.qwen_emotion.rglob("*") if self.qwen_emotion.is_dir() else ()
        return [path for path in (*files, *sorted(emotion)) if path.is_file() and path != self.glossary]


def resolve_model_dir(model_dir: Path) -> tuple[Path, bool]:
    """The folder to load from, and whether it is the bundled model because ``model_dir`` holds no model.

    A folder with only some of the files of a model is taken as that model, so that the rest is reported missing.

    Raises:
        CheckpointError: the folder was named and does not exist.
    """
    official = ("config.yaml", "gpt.pth", "s2mel.pth", "bpe.model", "feat1.pt", "feat2.pt", "wav2vec2bert_stats.pt")
    if any((model_dir / name).exists() for name in official):
        return model_dir, model_dir.resolve() == BUNDLED_DIR
    if not model_dir.is_dir() and model_dir != Path("checkpoints"):
        raise CheckpointError(f"the model folder {str(model_dir)!r} does not exist; {DOWNLOAD_HINT}")
    logger.warning("no model files in %s: using the bundled small voice model; %s", model_dir, DOWNLOAD_HINT)
    return BUNDLED_DIR, True


def locate(
    model_dir: Path,
    config_path: Path | None = None,
    aux_paths: Mapping[str, str | Path] | None = None,
) -> tuple[ModelConfig, ModelFiles]:
    """Find every file of the model in ``model_dir`` (or of the bundled model) and read its configuration.

    Args:
        config_path: Another ``config.yaml``; ignored for the bundled model, which has its own.
        aux_paths: Own places for auxiliary models, by the keys of ``AUXILIARY``.

    Raises:
        CheckpointError: files are missing; the message lists all of them.
        ConfigError: the configuration is malformed.
    """
    aux_paths = dict(aux_paths or {})
    if unknown := set(aux_paths) - set(AUXILIARY):
        raise CheckpointError(f"unknown auxiliary models {sorted(unknown)}; known are {sorted(AUXILIARY)}")
    root, bundled = resolve_model_dir(model_dir)
    config_file = root / "config.yaml" if bundled or config_path is None else config_path
    if bundled and config_path is not None and config_path.is_file() and config_path.resolve() != config_file:
        logger.warning("%s is not used: the bundled model has its own configuration", config_path)
    config = load_model_config(config_file) if config_file.is_file() else ModelConfig()
    paths = {
        "bpe_model": root / config.bpe_model,
        "gpt": root / config.gpt_checkpoint,
        "s2mel": root / config.s2mel_checkpoint,
        "w2v_stat": root / config.w2v_stat,
        "spk_matrix": root / config.spk_matrix,
        "emo_matrix": root / config.emo_matrix,
        **{key: Path(aux_paths[key]) if key in aux_paths else _find_auxiliary(root, key) for key in AUXILIARY},
    }
    if missing := [str(path) for path in (config_file, *paths.values()) if not path.is_file()]:
        raise CheckpointError(f"missing model files: {', '.join(missing)}; {DOWNLOAD_HINT}")
    optional = {"qwen_emotion": root / config.qwen_emo_path, "glossary": root / "glossary.yaml"}
    return config, ModelFiles(root=root, config_path=config_file, bundled=bundled, **paths, **optional)


def record_files(files: ModelFiles, source: str = "the files as they were") -> Path:
    """Write the manifest of a model that is there; files outside its folder are not in it."""
    paths = [path for path in files.paths() if path.is_relative_to(files.root)]
    return write_manifest(files.root, {p.relative_to(files.root).as_posix(): record(p) for p in paths}, source)


def _find_auxiliary(root: Path, key: str) -> Path:
    """An auxiliary model file: below ``hf_cache/``, else in a hub cache, else where it should be."""
    repo, remote, names = AUXILIARY[key]
    cache = root / "hf_cache"
    for name in names:
        if (cache / name).is_file():
            return cache / name
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub")
    for base in (cache, hub.expanduser()):
        found = sorted(base.glob(f"models--{repo.replace('/', '--')}/snapshots/*/{remote}"))
        if found:
            return found[-1]
    return cache / names[0]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a ``.safetensors`` file or of a pickle (weights only), nested dicts flattened with dots.

    A file that is a single tensor gives the key "". Integer and boolean leaves of training checkpoints are skipped.

    Raises:
        CheckpointError: the file is damaged, or a pickle holds anything but tensors and plain containers.
    """
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            is_archive = zipfile.is_zipfile(path)
            if is_archive:
                _refuse_zip_bomb(path)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
            tensors = dict(_flatten(content, "", set()))
        _refuse_odd_tensors(tensors)
        return _expand_int8(tensors)
    except UNREADABLE as error:
        raise CheckpointError(f"cannot read the model file {path}: {error!s:.1000}") from error


def _refuse_zip_bomb(path: Path) -> None:
    """torch stores uncompressed, so the members of an honest file are together smaller than it is."""
    with zipfile.ZipFile(path) as archive:
        unpacked_bytes = sum(member.file_size for member in archive.infolist())
    if unpacked_bytes > path.stat().st_size:
        raise ValueError(
            f"its {path.stat().st_size} bytes unpack to {unpacked_bytes}, and PyTorch packs nothing: "
            "this is not a file of torch.save"
        )


def _flatten(value: object, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping):
        if id(value) in seen:  # a few dicts that hold each other many times over would be endless
            raise ValueError(f"the same mapping is in it more than once, again as {prefix!r}")
        seen.add(id(value))
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else str(key), seen)


def _refuse_odd_tensors(tensors: Mapping[str, Tensor]) -> None:
    """A pickle may also hold tensors without values, sparse ones, and views larger than what is stored."""
    for key, value in tensors.items():
        is_plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not is_plain or value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{key or 'its tensor'} {list(value.shape)} is not stored as plain numbers")


def _expand_int8(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace int8 rows and their ``<key>.scale`` by float32 rows."""
    result = {}
    for key, value in tensors.items():
        if value.dtype == torch.int8 and (scale := tensors.get(f"{key}.scale")) is not None:
            if not value.ndim or scale.numel() != len(value):
                raise ValueError(f"{key} {list(value.shape)} has scales {list(scale.shape)}: one per row is right")
            result[key] = value.float() * scale.float().reshape(-1, *[1] * (value.ndim - 1))
        elif not (key.endswith(".scale") and tensors.get(key.removesuffix(".scale"), value).dtype == torch.int8):
            result[key] = value
    return result


def section(tensors: Mapping[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """The tensors below the first prefix that occurs, without it; all of them if none occurs."""
    for prefix in prefixes:
        inner = {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
        if inner:
            return inner
    return dict(tensors)


@contextmanager
def without_allocating() -> Iterator[None]:
    """Build modules whose parameters take no memory and no initialisation until a checkpoint is assigned.

    Buffers are real, because those that no file carries are computed by the constructors.
    """
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def load_strictly(
    module: nn.Module, tensors: Mapping[str, Tensor], path: Path | str, ignored: tuple[str, ...] = ()
) -> None:
    """Assign ``tensors`` to ``module`` in float32; every key must be known, every parameter given, every shape equal.

    Args:
        ignored: Patterns of keys that a file may carry and the network does not use.

    Raises:
        CheckpointError: listing all missing, unexpected and mis-shaped tensors, or those with NaN.
    """
    expected = module.state_dict()
    tensors = unfold_plain_weights(tensors, expected)
    given = {
        key: value
        for key, value in tensors.items()
        if key in expected or not _matches(key, (*ignored, *DETERMINISTIC_BUFFERS))
    }
    for key, value in expected.items():
        if key not in given and not value.is_meta and _matches(key, DETERMINISTIC_BUFFERS):
            given[key] = value
    problems = {
        "missing": [f"{key} {list(value.shape)}" for key, value in expected.items() if key not in given],
        "unexpected": [f"{key} {list(value.shape)}" for key, value in given.items() if key not in expected],
        "different": [
            f"{key} has shape {list(given[key].shape)}, the configuration needs {list(value.shape)}"
            for key, value in expected.items()
            if key in given and given[key].shape != value.shape
        ],
        "of another kind": [
            f"{key} is of {given[key].dtype}, the network of {value.dtype}"
            for key, value in expected.items()
            if key in given and given[key].is_floating_point() != value.is_floating_point()
        ],
    }
    if any(problems.values()):
        shown = "; ".join(f"{len(found)} {kind}: {_first(found)}" for kind, found in problems.items() if found)
        raise CheckpointError(f"{path} does not fit the network: {shown}")
    if broken := [key for key, value in given.items() if not all_finite(value)]:
        raise CheckpointError(f"{path} is damaged: NaN or infinite numbers in {_first(broken)}")
    as_float = {k: v.float() if v.is_floating_point() else v for k, v in given.items()}
    module.load_state_dict(as_float, strict=True, assign=True)


def all_finite(tensor: Tensor) -> bool:
    """Whether no number is NaN or infinite. The sum tells it in one pass, unless it overflows by itself."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _first(items: Sequence[str], limit: int = 12) -> str:
    """The first of many: a file of another model has hundreds of misfits, which nobody reads."""
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
