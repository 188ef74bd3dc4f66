"""Recordings are spoken again, from their mel or their codes, with and without what the language model has to say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import soundfile
import torch

from indextts.checkpoints import BUNDLED_DIR, read_tensors
from training import resynthesise
from training.clips import Clip, read_clips, write_clips
from training.without_latents import muted


def test_muted_latents_are_zeros_and_nothing_else_changes() -> None:
    tensors = {"gpt_layer.0.weight": torch.ones(2, 2), "gpt_layer.2.weight": torch.ones(2, 2), "x": torch.ones(1)}
    result = muted(tensors)
    assert not result["gpt_layer.2.weight"].any()
    assert result["gpt_layer.0.weight"].all() and result["x"].all() and tensors["gpt_layer.2.weight"].all()


def test_the_bundled_flow_loads_muted() -> None:
    tensors = read_tensors(BUNDLED_DIR / "s2mel.safetensors")
    assert muted(tensors).keys() == tensors.keys()


@pytest.mark.slow
def test_a_recording_is_spoken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = read_clips(resynthesise.HERE / "prompts")[0]
    recording = resynthesise.HERE / "prompts" / clip.file
    samples, rate_hz = soundfile.read(recording, stop=2 * 22050)
    soundfile.write(tmp_path / "short.wav", samples, rate_hz)
    write_clips(tmp_path, [Clip("short.wav", "They smoked up the room.", clip.voice)])
    made = {}
    for what in ("mel", "codes", "latents"):
        out = tmp_path / what
        monkeypatch.setattr(sys, "argv", ["x", "--recordings", str(tmp_path), "--what", what, "--out", str(out)])
        resynthesise.main()
        made[what], rate_hz = soundfile.read(out / read_clips(out)[0].file)
        assert abs(len(made[what]) - 2 * rate_hz) < 0.1 * rate_hz and made[what].std() > 0.01
