"""The audio front end against the reference tensors."""

from __future__ import annotations

from pathlib import Path

import soundfile
import torch

from indextts.audio import (
    kaldi_fbank,
    load_audio,
    log_mel,
    resample_22k_to_16k,
    semantic_features,
    style_features,
)
from indextts.config import SpectrogramConfig


def test_mel_spectrogram(golden) -> None:
    case = golden.component("mel_spectrogram")
    c = case.config
    config = SpectrogramConfig(c["n_fft"], c["win_size"], c["hop_size"], c["num_mels"], c["fmin"], c["fmax"])
    for name in case.names("in"):
        case.check(name.replace("wav", "mel"), log_mel(case.input(name), config, c["sampling_rate"]))


def test_kaldi_fbank(golden) -> None:
    case = golden.component("kaldi_fbank")
    for name in case.names("in"):
        wave = case.input(name)
        case.check(name.replace("wav", "fbank"), kaldi_fbank(wave)[0])
        case.check(name.replace("wav", "fbank_cmn"), style_features(wave)[0])


def test_semantic_features(golden) -> None:
    case = golden.component("seamless_features")
    for name in case.names("in"):
        features, mask = semantic_features(case.input(name))
        case.check(name.replace("wav", "input_features"), features)
        case.check(name.replace("wav", "attention_mask"), mask)


def test_resampling(golden, tmp_path: Path) -> None:
    case = golden.component("resample")
    case.check("torchaudio_22050_to_16000", resample_22k_to_16k(case.input("wav_22050")))
    recordings = [name.removesuffix("_int16") for name in case.names("in") if name.endswith("_int16")]
    assert recordings
    for name in recordings:
        path = tmp_path / f"{name}.wav"
        rate = int(case.input(f"{name}_sr"))
        soundfile.write(path, case.input(f"{name}_int16").to(torch.int16).numpy(), rate, subtype="PCM_16")
        case.check(f"{name}.librosa_default", load_audio(path, 22050)[0])
        case.check(f"{name}.librosa_16000", load_audio(path.read_bytes(), 16000)[0])
