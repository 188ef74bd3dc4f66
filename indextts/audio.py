"""Recordings in, features for the networks, samples out (spec 5 and 12).

Waveforms are float32 tensors ``[B, N]`` in [-1, 1]; features are computed in batches, on the device of the
waveform, and differentiably, so that training uses the same front end as inference. Output audio is int16.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from indextts.config import SpectrogramConfig
from indextts.errors import AudioError, ConfigError
from indextts.types import read_recording

if TYPE_CHECKING:
    import soundfile

SAMPLE_RATE_HZ = 22050  # of mels and of the output
SEMANTIC_SAMPLE_RATE_HZ = 16000  # of the semantic and the style encoder
MAX_PROMPT_S = 15.0
MIN_PROMPT_S = 0.5
MIN_RATE_HZ, MAX_RATE_HZ = 4000, 768_000  # of a recording that can be read
READ_VALUES = 2**20  # decoded at once, all channels together
MAX_PEAK = 10.0  # times full scale; floats beyond it are no sound, or whole numbers that nobody scaled
SILENCE_PEAK = 1e-3  # -60 dBFS; a recording that never exceeds it is silence

FBANK_BINS = 80
FBANK_WINDOW = 400  # 25 ms at 16 kHz
FBANK_HOP = 160  # 10 ms
FBANK_FFT = 512
FBANK_LOW_HZ, FBANK_HIGH_HZ = 20.0, 8000.0
FBANK_FLOOR = 1.1920928955078125e-07
PREEMPHASIS = 0.97
SEMANTIC_STRIDE = 2  # fbank frames in one semantic frame of 20 ms
SEMANTIC_PADDING = 1.0


# ---------------------------------------------------------------------------------------------- recordings in


def load_audio(
    source: str | Path | bytes, sample_rate_hz: int, max_s: float | None = None, name: str = ""
) -> Tensor:
    """Decode a recording, mix it to mono and resample it as librosa does by default (``soxr_hq``).

    Args:
        source: a path, or the content of a file (WAV, FLAC, OGG, MP3).
        sample_rate_hz: wanted rate.
        max_s: keep only so many seconds from the start; the rest of a long file is not decoded.
        name: how error messages call the recording; default: the file name.

    Returns:
        The waveform, ``[1, N]`` float32.

    Raises:
        AudioError: the recording cannot be read or decoded, or holds samples that are not finite.
    """
    if not isinstance(source, bytes):
        name = name or Path(source).name
        source = read_recording(source)
    name = name or "recording"
    with _opened(source, name) as file:
        rate_hz = file.samplerate
        # One second more than is kept: the resampler then sees what it would see of the whole file.
        limit = math.inf if max_s is None else int((max_s + 1) * rate_hz)
        samples = _read_mono(file, limit)
    if not np.isfinite(samples).all():
        raise AudioError(f"the recording {name!r} contains samples that are not finite numbers")
    wave = torch.from_numpy(_soxr_hq(samples, rate_hz, sample_rate_hz))[None]
    return wave if max_s is None else wave[:, : int(max_s * sample_rate_hz)]


def recording_length(path: str | Path) -> tuple[int, float]:
    """Sample rate in Hz and length in seconds of a recording, as its header says: the rest of it is not read.

    Raises:
        AudioError: as ``load_audio``.
    """
    try:
        empty = not Path(path).stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"cannot read the recording {str(path)!r}: {reason}") from error
    with _opened(b"" if empty else str(path), Path(path).name) as file:
        return file.samplerate, file.frames / file.samplerate


@contextmanager
def _opened(source: str | bytes, name: str) -> Iterator[soundfile.SoundFile]:
    """A recording, by its path or content; what goes wrong, now or while it is read, is an ``AudioError``."""
    import soundfile  # reading and writing files is not needed for training

    if not source:
        raise AudioError(f"the recording {name!r} is empty (0 bytes)")
    try:
        with soundfile.SoundFile(_Content(source) if isinstance(source, bytes) else source) as file:
            if not MIN_RATE_HZ <= file.samplerate <= MAX_RATE_HZ:
                raise AudioError(
                    f"the recording {name!r} has {file.samplerate} samples a second: "
                    f"{MIN_RATE_HZ} to {MAX_RATE_HZ} can be used"
                )
            yield file
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: samples without a header
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise AudioError(
            f"cannot decode the recording {name!r}: {reason}. Use a WAV, FLAC, OGG or MP3 file"
        ) from error


class _Content(io.BytesIO):
    """Bytes for libsndfile, which a damaged header makes look for something before their start."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._size = len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = (0, self.tell(), self._size)[whence]
        return super().seek(max(0, base + offset))


def _read_mono(file: soundfile.SoundFile, limit: float) -> np.ndarray:
    """At most ``limit`` frames as the mean of their channels: piece by piece, for a header may promise anything."""
    pieces = [np.zeros(0, np.float32)]
    while limit > 0:
        piece = file.read(int(min(READ_VALUES // file.channels + 1, limit)), dtype="float32", always_2d=True)
        if not len(piece):
            break
        with np.errstate(invalid="ignore", over="ignore"):  # whether all are finite is asked of the whole
            pieces.append(piece.mean(1))
        limit -= len(piece)
    return np.concatenate(pieces)


def _soxr_hq(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample ``[N]`` to exactly ``ceil(N * to_hz / from_hz)`` samples."""
    import soxr

    if from_hz == to_hz or not len(samples):
        return samples
    size = math.ceil(len(samples) * to_hz / from_hz)
    resampled = soxr.resample(samples, from_hz, to_hz, quality="soxr_hq")[:size]
    return np.pad(resampled, (0, size - len(resampled)))


def load_prompt(source: str | Path | bytes, sample_rate_hz: int, name: str = "") -> Tensor:
    """Load a voice or emotion prompt: at most its first ``MAX_PROMPT_S`` seconds, checked to be usable.

    Returns:
        The waveform, ``[1, N]`` float32.

    Raises:
        AudioError: unreadable, shorter than ``MIN_PROMPT_S``, silent, or far beyond full scale.
    """
    wave = load_audio(source, sample_rate_hz, MAX_PROMPT_S, name)
    check_prompt(
        wave, sample_rate_hz, name or ("recording" if isinstance(source, bytes) else Path(source).name)
    )
    return wave


def check_prompt(wave: Tensor, sample_rate_hz: int, name: str = "recording") -> None:
    """Raise ``AudioError`` if a waveform ``[1, N]`` is too short, too quiet or too loud to take a voice from."""
    duration_s = wave.shape[-1] / sample_rate_hz
    if duration_s < MIN_PROMPT_S:
        raise AudioError(
            f"the recording {name!r} is too short: {duration_s:.2f} s; at least {MIN_PROMPT_S} s are needed"
        )
    peak = wave.abs().max().item()
    if peak < SILENCE_PEAK:
        raise AudioError(f"the recording {name!r} is silent: its peak is {peak:.6f} of full scale")
    if not peak <= MAX_PEAK:
        raise AudioError(f"the recording {name!r} has a peak of {peak:.3g} times full scale: samples are from -1 to 1")


def resample_22k_to_16k(wave: Tensor) -> Tensor:
    """Resample ``[B, N]`` from 22.05 to 16 kHz with torchaudio's defaults (windowed sinc, spec 5.1)."""
    with _no_autocast(wave):
        return _resampler(SAMPLE_RATE_HZ, SEMANTIC_SAMPLE_RATE_HZ, wave.device)(wave)


@lru_cache(maxsize=8)
def _resampler(from_hz: int, to_hz: int, device: torch.device) -> torch.nn.Module:
    with torch.inference_mode(False):  # a cached tensor must serve training as well
        return torchaudio.transforms.Resample(from_hz, to_hz).to(device)


# --------------------------------------------------------------------------------------------------- features


def log_mel(wave: Tensor, config: SpectrogramConfig, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Tensor:
    """Log-mel spectrogram of the vocoder's kind (spec 5.4).

    Args:
        wave: ``[B, N]`` with N of at least one hop and more than ``(n_fft - hop_length) / 2`` samples.
        config: analysis sizes.
        sample_rate_hz: rate of ``wave``.

    Returns:
        ``[B, n_mels, N // hop_length]``, natural log.
    """
    filterbank, window = _mel_tables(config, sample_rate_hz, wave.device, wave.dtype)
    margin = (config.n_fft - config.hop_length) // 2
    with _no_autocast(wave):
        padded = F.pad(wave, (margin, margin), mode="reflect")
        spectrum = torch.stft(
            padded,
            config.n_fft,
            config.hop_length,
            config.win_length,
            window,
            center=False,
            return_complex=True,
        )
        magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
        return torch.log(torch.clamp(filterbank @ magnitude, min=1e-5))


@lru_cache(maxsize=8)
def _mel_tables(
    config: SpectrogramConfig, sample_rate_hz: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Slaney mel filters ``[n_mels, n_fft // 2 + 1]`` (those of librosa) and the Hann window."""
    fmax = sample_rate_hz / 2 if config.fmax in (None, "None") else config.fmax
    if isinstance(fmax, str) or fmax is None:
        raise ConfigError(f"spect_params.fmax must be a number of Hz or None, not {fmax!r}")
    with torch.inference_mode(False):
        filters = torchaudio.functional.melscale_fbanks(
            config.n_fft // 2 + 1, config.fmin, fmax, config.n_mels, sample_rate_hz, "slaney", "slaney"
        )
        window = torch.hann_window(config.win_length)
        return filters.T.contiguous().to(device, dtype), window.to(device, dtype)


def kaldi_fbank(wave: Tensor) -> Tensor:
    """Kaldi's log filterbank energies without dither (spec 5.5).

    Args:
        wave: ``[B, N]`` at 16 kHz, N >= 400.

    Returns:
        ``[B, F, 80]`` with F = ``num_fbank_frames(N)``.
    """
    window, filters = _fbank_tables(wave.device, wave.dtype)
    with _no_autocast(wave):
        frames = wave.unfold(-1, FBANK_WINDOW, FBANK_HOP)
        frames = frames - frames.mean(-1, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], -1)
        frames = (frames - PREEMPHASIS * previous) * window
        power = torch.fft.rfft(frames, FBANK_FFT).abs().square()
        return torch.log(torch.clamp(power @ filters, min=FBANK_FLOOR))


def num_fbank_frames(num_samples: Any) -> Any:
    """Whole windows in so many samples at 16 kHz; takes an int or an integer tensor."""
    return (num_samples - FBANK_WINDOW) // FBANK_HOP + 1


def style_features(wave: Tensor, num_samples: Tensor | None = None) -> Tensor:
    """Input of CAM++: filterbank energies minus their mean over time (spec 5.5).

    Args:
        wave: ``[B, N]`` at 16 kHz.
        num_samples: ``[B]`` true lengths; None means that all rows are N long.

    Returns:
        ``[B, F, 80]``, zero in padded frames.
    """
    fbank = kaldi_fbank(wave)
    valid = _valid_frames(fbank, num_samples)
    mean = (fbank * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True)
    return (fbank - mean) * valid


def semantic_features(wave: Tensor, num_samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Input of the semantic encoder, equal to transformers' ``SeamlessM4TFeatureExtractor`` (spec 5.2).

    Args:
        wave: ``[B, N]`` at 16 kHz, every row at least 560 samples long (two windows).
        num_samples: ``[B]`` true lengths; None means that all rows are N long.

    Returns:
        ``input_features [B, T, 160]`` and ``attention_mask [B, T]`` int64, T = ceil(F / 2). The last position
        of a row with an odd number of frames is half padding, and masked.
    """
    fbank = kaldi_fbank(wave * 2**15)
    valid = _valid_frames(fbank, num_samples)
    count = valid.sum(1, keepdim=True)
    mean = (fbank * valid).sum(1, keepdim=True) / count
    centred = (fbank - mean) * valid
    variance = centred.square().sum(1, keepdim=True) / (count - 1)
    features = torch.where(valid > 0, centred / torch.sqrt(variance + 1e-7), SEMANTIC_PADDING)
    odd = features.shape[1] % SEMANTIC_STRIDE
    features = F.pad(features, (0, 0, 0, odd), value=SEMANTIC_PADDING)
    mask = F.pad(valid, (0, 0, 0, odd))[:, 1::SEMANTIC_STRIDE, 0]
    return features.reshape(len(wave), -1, SEMANTIC_STRIDE * FBANK_BINS), mask.long()


def num_semantic_frames(num_samples: Any) -> Any:
    """Semantic frames (50 a second) of so many samples at 16 kHz; takes an int or an integer tensor."""
    return (num_fbank_frames(num_samples) + SEMANTIC_STRIDE - 1) // SEMANTIC_STRIDE


def _valid_frames(fbank: Tensor, num_samples: Tensor | None) -> Tensor:
    """1 for frames inside the recording and 0 for padding, ``[B, F, 1]``."""
    batch, frames, _ = fbank.shape
    if num_samples is None:
        return fbank.new_ones(batch, frames, 1)
    index = torch.arange(frames, device=fbank.device)
    return (index < num_fbank_frames(num_samples.to(fbank.device))[:, None])[..., None].to(fbank.dtype)


@lru_cache(maxsize=8)
def _fbank_tables(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The Povey window ``[400]`` and Kaldi's mel filters ``[257, 80]``, computed in double precision."""

    def mel(hz: Any) -> Any:
        return 1127.0 * np.log(1.0 + np.asarray(hz) / 700.0)

    edges = np.linspace(mel(FBANK_LOW_HZ), mel(FBANK_HIGH_HZ), FBANK_BINS + 2)
    bins = mel(np.arange(FBANK_FFT // 2 + 1) * SEMANTIC_SAMPLE_RATE_HZ / FBANK_FFT)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    window = np.hanning(FBANK_WINDOW) ** 0.85
    with torch.inference_mode(False):
        return torch.from_numpy(window).to(device, dtype), torch.from_numpy(filters).to(device, dtype)


def _no_autocast(wave: Tensor) -> torch.autocast:
    """Features need float32 also inside a mixed-precision region."""
    return torch.autocast(wave.device.type, enabled=False)


# --------------------------------------------------------------------------------------------- samples out


def to_pcm16(wave: Tensor) -> np.ndarray:
    """Waveform in [-1, 1] of any shape to int16 ``[N]``: scaled by 32767, clamped, rounded (spec 12)."""
    scaled = (wave.detach().float().flatten() * 32767).clamp(-32767, 32767)
    return scaled.round().to(torch.int16).cpu().numpy()


def silence(duration_ms: float, sample_rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    """Zeros, int16 ``[N]``; a duration of zero or less gives none."""
    return np.zeros(max(0, math.trunc(sample_rate_hz * duration_ms / 1000)), dtype=np.int16)
