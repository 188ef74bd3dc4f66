"""What a model knows of a saved voice, in a file beside its recording, so that the voice starts at once next time.

A file is of one recording and one model: it names both, and is of no use to any other. It is a safetensors file, so
that reading it runs nothing; whatever is wrong with it, it is made anew.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from indextts import __version__
from indextts.checkpoints import all_finite
from indextts.files import write_at_once
from indextts.loading import Models
from indextts.types import Voice, VoicePrompt

logger = logging.getLogger(__name__)

FORM = "1"  # another one for another way to compute a conditioning
MAX_FILE_BYTES = 64 * 2**20  # 15 s of a voice take about 6 MB
SAMPLED_VALUES = 16  # of each tensor of a network


@dataclass(frozen=True)
class KnownVoice:
    """All that the conditioning networks can tell of a recording."""

    voice: Voice
    recorded_emotion: Tensor  # [1, model_dim]

    def tensors(self) -> dict[str, Tensor]:
        return {**vars(self.voice), "recorded_emotion": self.recorded_emotion}


def model_fingerprint(models: Models) -> str:
    """SHA-256 of what conditionings depend on: the sizes, the precision, the device, and the weights.

    Of each tensor some values stand for all, for reading gigabytes would take longer than to listen once more. Training
    moves all of them, as does another precision.
    """
    digest = hashlib.sha256(f"{FORM} {__version__} {models.device.type} {models.config}".encode())
    networks = (models.semantic_encoder, models.semantic_codec, models.style_encoder, models.gpt, models.s2mel)
    tensors = [item for network in networks for item in network.state_dict().items()]
    digest.update("".join(f"{name} {tensor.dtype} {list(tensor.shape)} " for name, tensor in tensors).encode())
    sampled = [tensor.flatten()[:: max(1, tensor.numel() // SAMPLED_VALUES)] for _, tensor in tensors]
    digest.update(torch.cat([values.float().cpu() for values in sampled]).numpy().tobytes())
    return digest.hexdigest()


def load_known_voice(path: Path, prompt: VoicePrompt, fingerprint: str, models: Models) -> KnownVoice | None:
    """What the file at ``path`` knows of the recording; None if there is none, or none of it and this model."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES:,} bytes")
        with safe_open(path, framework="pt", device=str(models.device)) as file:
            if file.metadata() != about(prompt, fingerprint):
                logger.info("%s is of another model or recording: listening to %s again", path, prompt.name)
                return None
            tensors = {name: file.get_tensor(name) for name in file.offset_keys()}
        known = KnownVoice(recorded_emotion=tensors.pop("recorded_emotion"), voice=Voice(**tensors))
        check(known, models)
        return known
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, TypeError, LookupError) as error:
        logger.warning("%s cannot be used, listening to %s again: %s", path, prompt.name, error)
        return None


def save_known_voice(path: Path, known: KnownVoice, prompt: VoicePrompt, fingerprint: str) -> None:
    """Write the file, in one step. A folder that cannot be written is no reason not to speak."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in known.tensors().items()}
    try:
        write_at_once(path, safetensors.torch.save(tensors, about(prompt, fingerprint)))
    except OSError as error:
        logger.warning("cannot keep what was heard of %s: %s", prompt.name, error)


def about(prompt: VoicePrompt, fingerprint: str) -> dict[str, str]:
    """What a file says of itself."""
    return {"recording": prompt.key, "model": fingerprint}


def check(known: KnownVoice, models: Models) -> None:
    """Raise ``ValueError`` for tensors that this model cannot have made."""
    config, frames = models.config, known.voice.prompt_mel.shape[-1]
    shapes = {
        "semantic_embedding": [1, known.voice.semantic_embedding.shape[1], config.w2v_bert.hidden_size],
        "prompt_condition": [1, frames, config.s2mel.length_regulator.channels],
        "prompt_mel": [1, config.s2mel.preprocess_params.spect_params.n_mels, frames],
        "style": [1, config.s2mel.style_encoder.dim],
        "speaker_latents": [1, config.gpt.condition_num_latent, config.gpt.model_dim],
        "emotion_vector": [1, config.gpt.model_dim],
        "recorded_emotion": [1, config.gpt.model_dim],
    }
    for name, tensor in known.tensors().items():
        if list(tensor.shape) != shapes[name] or not tensor.numel() or not tensor.is_floating_point():
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, not {shapes[name]}")
        if not all_finite(tensor):
            raise ValueError(f"{name} has values that are not finite")
