"""What is stored of the trained weights is read back nearly unchanged."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from indextts.checkpoints import read_tensors
from training.export import FILES, export


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
    error = (back["large"] - weights["large"]).abs().amax(1) / weights["large"].abs().amax(1)
    assert error.max() < 1 / 200
