"""Reading and feature edge cases of the audio front end."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from indextts.audio import (
    MAX_PROMPT_S,
    kaldi_fbank,
    load_audio,
    load_prompt,
    log_mel,
    num_fbank_frames,
    num_semantic_frames,
    resample_22k_to_16k,
    semantic_features,
    silence,
    style_features,
    to_pcm16,
)
from indextts.config import SpectrogramConfig
from indextts.errors import AudioError, ConfigError


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def wav_bytes(samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------ reading


def test_missing_file_is_named() -> None:
    with pytest.raises(AudioError, match=r"no_such\.wav"):
        load_prompt("no_such.wav", 22050)


@pytest.mark.parametrize("content", [b"this is text, not sound", b"RIFF\x00\x00\x00\x00WAVE"])
def test_undecodable_content(content: bytes) -> None:
    with pytest.raises(AudioError, match="cannot decode"):
        load_prompt(content, 22050)


def test_empty_content() -> None:
    with pytest.raises(AudioError, match="0 bytes"):
        load_prompt(b"", 22050)


@pytest.mark.parametrize("samples", [0, 1, 4000])
def test_too_short(samples: int) -> None:
    with pytest.raises(AudioError, match="too short"):
        load_prompt(wav_bytes(noise(samples).numpy(), 16000), 16000, "clip.wav")


def test_silent() -> None:
    with pytest.raises(AudioError, match=r"'clip\.wav' is silent"):
        load_prompt(wav_bytes(np.zeros(22050), 22050), 22050, "clip.wav")


def test_not_finite() -> None:
    samples = noise(22050).numpy()
    samples[100] = np.nan
    with pytest.raises(AudioError, match="finite"):
        load_prompt(wav_bytes(samples, 22050, "FLOAT"), 22050)


def test_stereo_is_averaged() -> None:
    left, right = noise(2, 22050).numpy()
    got = load_audio(wav_bytes(np.stack([left, right], 1), 22050, "FLOAT"), 22050)
    torch.testing.assert_close(got[0], torch.from_numpy((left + right) / 2))


def test_long_prompt_equals_the_start_of_the_whole_recording() -> None:
    content = wav_bytes(noise(int((MAX_PROMPT_S + 3) * 24000)).numpy(), 24000)
    prompt = load_prompt(content, 22050)
    assert prompt.shape == (1, int(MAX_PROMPT_S * 22050))
    torch.testing.assert_close(prompt, load_audio(content, 22050)[:, : prompt.shape[1]], atol=1e-6, rtol=0)


# ----------------------------------------------------------------------------------------------- features


def test_mel_filters_are_those_of_librosa() -> None:
    from librosa.filters import mel

    from indextts.audio import _mel_tables

    for config in (SpectrogramConfig(), SpectrogramConfig(n_fft=512, win_length=512, n_mels=40, fmax=8000)):
        filters, _ = _mel_tables(config, 22050, torch.device("cpu"), torch.float32)
        fmax = None if config.fmax is None else float(config.fmax)
        want = mel(sr=22050, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.fmin, fmax=fmax)
        np.testing.assert_allclose(filters.numpy(), want, atol=1e-6)


def test_mel_tables_depend_on_the_whole_configuration() -> None:
    wave = noise(1, 8000)
    assert log_mel(wave, SpectrogramConfig(n_mels=40)).shape[1] == 40
    assert log_mel(wave, SpectrogramConfig(n_mels=80)).shape[1] == 80
    torch.testing.assert_close(
        log_mel(wave, SpectrogramConfig(fmax="None")), log_mel(wave, SpectrogramConfig(fmax=None))
    )
    with pytest.raises(ConfigError, match="fmax"):
        log_mel(wave, SpectrogramConfig(fmax="high"))


def test_mel_is_batched_and_differentiable() -> None:
    wave = noise(3, 9000).requires_grad_()
    mel = log_mel(wave, SpectrogramConfig())
    assert mel.shape == (3, 80, 9000 // 256)
    torch.testing.assert_close(mel[1:2], log_mel(wave[1:2], SpectrogramConfig()))
    mel.sum().backward()
    assert wave.grad is not None and wave.grad.isfinite().all() and wave.grad.abs().sum() > 0


def test_tables_made_in_inference_mode_serve_training() -> None:
    config = SpectrogramConfig(n_mels=23)
    with torch.inference_mode():
        log_mel(noise(1, 4096), config)
    log_mel(noise(1, 4096).requires_grad_(), config).sum().backward()


def test_features_stay_float32_under_autocast() -> None:
    wave = noise(1, 22050)
    with torch.autocast("cpu", torch.bfloat16):
        got = log_mel(wave, SpectrogramConfig()), kaldi_fbank(wave), resample_22k_to_16k(wave)
    want = log_mel(wave, SpectrogramConfig()), kaldi_fbank(wave), resample_22k_to_16k(wave)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("samples", [400, 559, 560, 16000, 12345])
def test_fbank_agrees_with_torchaudio(samples: int) -> None:
    wave = noise(1, samples, seed=samples)
    want = torchaudio.compliance.kaldi.fbank(wave, num_mel_bins=80, sample_frequency=16000, dither=0.0)
    torch.testing.assert_close(kaldi_fbank(wave)[0], want, atol=1e-3, rtol=1e-4)
    assert num_fbank_frames(samples) == len(want)


def test_semantic_features_agree_with_transformers_in_a_padded_batch() -> None:
    from transformers import SeamlessM4TFeatureExtractor

    extractor = SeamlessM4TFeatureExtractor(padding_value=1.0)
    lengths = [16000, 9600, 9760, 5000]
    waves = [noise(n, seed=n) for n in lengths]
    want = extractor([w.numpy() for w in waves], sampling_rate=16000, return_tensors="pt")
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True, padding_value=0.5)
    features, mask = semantic_features(batch, torch.tensor(lengths))
    torch.testing.assert_close(features, want["input_features"], atol=1e-3, rtol=1e-4)
    assert torch.equal(mask, want["attention_mask"].long())
    assert num_semantic_frames(max(lengths)) == features.shape[1]


def test_style_features_ignore_padding() -> None:
    wave, padded = noise(1, 8000), torch.cat([noise(1, 8000), noise(1, 4000, seed=1)], 1)
    alone, batched = style_features(wave), style_features(padded, torch.tensor([8000]))
    torch.testing.assert_close(batched[:, : alone.shape[1]], alone)
    assert batched[:, alone.shape[1] :].abs().max() == 0


# ------------------------------------------------------------------------------------------------ samples out


def test_pcm_is_rounded_and_clamped() -> None:
    wave = torch.tensor([[0.0, 1.0, -1.0, 2.0, -2.0, 0.6 / 32767, -0.6 / 32767]])
    assert to_pcm16(wave).tolist() == [0, 32767, -32767, 32767, -32767, 1, -1]


def test_silence() -> None:
    assert len(silence(200)) == 4410 and len(silence(-5)) == 0
