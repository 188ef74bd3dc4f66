"""The style encoder's trainer and extraction, on a handful of synthetic voices."""

from __future__ import annotations

import json
import logging
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from indextts.config_file import load_model_config
from indextts.models.campplus import CAMPPlus
from tests.training.no_waiting import NoWaiting
from training import extract_styles, loop, train_style_encoder
from training.dataset import SAMPLE_RATE_HZ, SpeechData
from training.train_style_encoder import AngularMarginLoss, draw_crops, equal_error_rate, verify

VOICES, SENTENCES, HELDOUT_VOICES, HELDOUT_SENTENCES = 6, 6, 3, 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every voice, a tone with harmonics of its own pitch, says every sentence."""
    folder = tmp_path_factory.mktemp("data")
    voices = [
        {"name": f"v{i}", "heldout": i >= VOICES - HELDOUT_VOICES, "pitch": 1.0, "place": [i / 6, 0.0]}
        for i in range(VOICES)
    ]
    sentences = [
        {"text": f"{i}", "language": "en", "phonemes": "a", "heldout": i >= SENTENCES - HELDOUT_SENTENCES}
        for i in range(SENTENCES)
    ]
    (folder / "voices.json").write_text(json.dumps(voices))
    (folder / "sentences.json").write_text(json.dumps(sentences))
    rows = [(voice, sentence) for voice in range(VOICES) for sentence in range(SENTENCES)]
    random = np.random.default_rng(0)
    waves = []
    for voice, sentence in rows:
        time_s = np.arange(int((1.2 + 0.3 * sentence) * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        tone = sum(np.sin(2 * np.pi * (90 + 40 * voice) * k * time_s) / k for k in range(1, 9))
        tone = tone * (0.6 + 0.4 * np.sin(2 * np.pi * (2 + sentence) * time_s)) + 0.01 * random.standard_normal(
            len(time_s)
        )
        waves.append((tone * 6000).astype("<i2"))
    lengths = np.array([len(w) for w in waves], np.int64)
    stem = folder / "shard_00000"
    np.concatenate(waves).tofile(stem.with_suffix(".pcm"))
    np.savez(
        stem.with_suffix(".npz"),
        offset=np.cumsum(lengths) - lengths,
        length=lengths,
        voice=np.array([v for v, _ in rows], np.int32),
        sentence=np.array([s for _, s in rows], np.int32),
        language=np.zeros(len(rows), np.int8),
        style=np.arange(len(rows), dtype=np.int8) % 9,
        intensity=np.full(len(rows), 0.5, np.float32),
        phone_ids=np.ones(len(rows), np.int16),
        phone_frames=np.full(len(rows), 40, np.int16),
        phone_offset=np.arange(len(rows) + 1, dtype=np.int64),
    )
    stem.with_suffix(".json").write_text("{}")
    return folder


def test_margin_makes_the_right_class_harder() -> None:
    torch.manual_seed(0)
    criterion = AngularMarginLoss(8, 5)
    style, voice = torch.randn(16, 8), torch.arange(16) % 5
    cosine = torch.nn.functional.cosine_similarity(style[:, None], criterion.centres[None], dim=-1)
    none, margin, scale = torch.tensor(0.0), torch.tensor(0.2), torch.tensor(30.0)
    plain, accuracy = criterion(style, voice, none, scale)
    torch.testing.assert_close(plain, torch.nn.functional.cross_entropy(30 * cosine, voice), rtol=1e-4, atol=1e-4)
    assert float(accuracy) == pytest.approx(float((cosine.argmax(1) == voice).float().mean()))
    right = cosine.gather(1, voice[:, None])
    moved = cosine.scatter(1, voice[:, None], torch.cos(torch.acos(right) + 0.2))
    expected = torch.nn.functional.cross_entropy(30 * moved, voice)
    assert bool((right > -math.cos(0.2)).all())  # else the loss is its linear continuation
    torch.testing.assert_close(criterion(style, voice, margin, scale)[0], expected, rtol=1e-4, atol=1e-4)


def test_equal_error_rate() -> None:
    same, different = torch.tensor([0.9, 0.8, 0.7, 0.3]), torch.tensor([0.6, 0.2, 0.1, 0.0])
    assert equal_error_rate(same, different) == pytest.approx(0.25)
    assert equal_error_rate(torch.ones(5), torch.zeros(7)) == pytest.approx(0.0, abs=1e-6)
    assert equal_error_rate(torch.zeros(5), torch.ones(7)) == pytest.approx(1.0, abs=1e-6)


def test_crops_are_excerpts_and_short_utterances_repeat(root: Path) -> None:
    data = SpeechData(root, "cpu")
    size = int(1.4 * SAMPLE_RATE_HZ)
    rows = torch.arange(3)  # 1.2 s, 1.5 s, 1.8 s
    crops = draw_crops(data, rows, size, torch.Generator().manual_seed(0))
    assert crops.shape == (3, size)
    length = int(data.num_samples(rows)[0])
    whole = data.wave(rows[:1])[0]
    torch.testing.assert_close(crops[0, :length], whole)
    torch.testing.assert_close(crops[0, length:], whole[: size - length])
    windows = data.wave(rows[2:])[0].unfold(0, size, 1)
    assert bool((windows == crops[2]).all(1).any())


def test_vectors_do_not_depend_on_the_batch(root: Path) -> None:
    torch.manual_seed(0)
    data = SpeechData(root, "cpu")
    model = CAMPPlus(load_model_config("checkpoints/nano/config.yaml").s2mel.style_encoder).eval()
    indices = torch.tensor([5, 0, 3])
    together = extract_styles.embed_utterances(model, data, indices, batch_size=1)
    alone = torch.cat([extract_styles.embed_utterances(model, data, i[None]) for i in indices])
    torch.testing.assert_close(together, alone)


def test_no_part_of_a_step_waits_for_the_device(root: Path) -> None:
    torch.manual_seed(0)
    data = SpeechData(root, "cpu")
    model = CAMPPlus(load_model_config("checkpoints/nano/config.yaml").s2mel.style_encoder)
    step = train_style_encoder.TrainStep(model.train(), train_style_encoder.places_of(data))
    before = step.place.weight.detach().clone()
    with NoWaiting():
        figures = step(torch.randn(4, 200, 80), torch.tensor([0, 1, 2, 0]), torch.tensor(0.1), torch.tensor(20.0))
    assert all(figure.isfinite() for figure in figures.values())
    assert not torch.equal(before, step.place.weight)


def test_trains_resumes_exports_and_extracts(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def options(*more: str):
        command = ["x", "--data", str(root), "--out", str(tmp_path), "--smoke", *more]
        monkeypatch.setattr(sys, "argv", command)
        return loop.arguments("", minutes=3, batch_size=512)

    for more in ((), ("--resume",)):
        train_style_encoder.train(options(*more))
        for handler in logging.getLogger("training.style_encoder").handlers:
            handler.close()
    log = (tmp_path / "style_encoder.log").read_text()
    assert "resumed at step 3" in log and "eer 0." in log
    options()
    extract_styles.main()
    styles = extract_styles.load_styles(tmp_path, "cpu")
    config = load_model_config("checkpoints/nano/config.yaml").s2mel.style_encoder
    data = SpeechData(root, "cpu")
    assert styles.shape == (len(data), config.dim) and bool(styles.isfinite().all())
    model = CAMPPlus(config).eval()
    model.load_state_dict(load_file(tmp_path / "campplus.safetensors"))
    expected = extract_styles.embed_utterances(model, data, torch.tensor([4]))
    torch.testing.assert_close(styles[4:5], expected, rtol=2e-3, atol=2e-3)
    heldout = SpeechData(root, "cpu", "heldout")
    assert extract_styles.load_styles(tmp_path, "cpu", "heldout").shape == (len(heldout), config.dim)
    assert set(verify(model, heldout, 9)) >= {"eer", "eer_noisy", "same", "different"}
