"""What is stored of the trained weights is read back nearly unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from indextts.checkpoints import read_tensors
from training.export import FILES, export
from training.import_weights import import_weights
from training.loop import save_weights


def test_stored_weights_are_read_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = {
        "large": torch.randn(96, 80) * torch.logspace(-3, 1, 96)[:, None],
        "small": torch.randn(7),
        "count": torch.tensor(3),
    }
    (tmp_path / "runs").mkdir()
    save_file(weights, tmp_path / "runs" / "gpt.safetensors")
    sizes = export(tmp_path / "runs", tmp_path / "model")
    assert set(sizes) == {FILES["gpt"]} and sizes[FILES["gpt"]] < 96 * 80 * 1.3 + 1000
    back = read_tensors(tmp_path / "model" / FILES["gpt"])
    assert back.keys() == weights.keys() and torch.equal(back["count"], weights["count"])
    torch.testing.assert_close(back["small"].float(), weights["small"], rtol=1e-3, atol=1e-3)
    imported = import_weights(tmp_path / "model", tmp_path / "next", ["gpt"])
    assert [path.name for path in imported] == ["gpt.safetensors"]
    assert torch.equal(load_file(imported[0])["large"], back["large"])
    with pytest.raises(ValueError, match="voice"):
        import_weights(tmp_path / "model", tmp_path / "next", ["voice"])
    error = (back["large"] - weights["large"]).abs().amax(1) / weights["large"].abs().amax(1)
    assert error.max() < 1 / 200


def test_unfinished_networks_come_from_their_checkpoints(tmp_path: Path) -> None:
    runs, model = tmp_path / "runs", tmp_path / "model"
    runs.mkdir()
    best = {"best": {"model.weight": torch.full((3,), 2.0), "cross_entropy": torch.tensor(1.5)}, "model": {}}
    best["best"]["model.told_emotions.weight"] = torch.ones(9, 3)  # of the training alone
    torch.save({"parts": best}, runs / "gpt.pt")
    save_weights(runs / "s2mel_codes.safetensors", {"weight": torch.full((3,), 4.0)})
    assert export(runs, model) == {}
    sizes = export(runs, model, use={"s2mel": "s2mel_codes"}, unfinished=True)
    assert set(sizes) == {FILES["gpt"], FILES["s2mel"]}
    assert read_tensors(model / FILES["gpt"])["weight"].tolist() == [2.0] * 3
    assert read_tensors(model / FILES["gpt"]).keys() == {"weight"}
    assert read_tensors(model / FILES["s2mel"])["weight"].tolist() == [4.0] * 3
