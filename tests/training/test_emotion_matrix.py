"""The tables behind the emotion sliders."""

from __future__ import annotations

import pytest
import torch

from training.make_emotion_matrix import tables


def test_each_emotion_has_rows_for_its_voices_and_the_vector_it_was_told_by() -> None:
    generator = torch.Generator().manual_seed(0)
    voices = torch.randn(4, 12, generator=generator)
    style = torch.arange(1, 9).repeat_interleave(80)
    speaker = torch.arange(640) % 4
    styles = voices[speaker] + 0.01 * torch.randn(640, 12, generator=generator)
    told = torch.randn(9, 6, generator=generator)
    rows = (4, 2, 1, 4, 3, 1, 2, 4)
    feat1, feat2 = tables(styles.half(), style, torch.ones(640), told, rows)
    assert feat1.shape == (21, 12) and feat2.shape == (21, 6)
    assert torch.equal(feat2, told[1:].repeat_interleave(torch.tensor(rows), dim=0))
    torch.testing.assert_close(feat1[6], styles[style == 3].mean(0), rtol=0, atol=2e-3)  # its only row: all voices
    assert torch.cdist(feat1[:4], feat1[:4]).add(torch.eye(4)).min() > 1e-3  # each row of its own voices


def test_an_emotion_that_nobody_speaks_strongly_is_named() -> None:
    style = torch.arange(1, 9).repeat_interleave(10)
    intensity = torch.where(style == 3, 0.5, 1.0)
    with pytest.raises(SystemExit, match="0 utterances in the style 'sad'"):
        tables(torch.randn(80, 4), style, intensity, torch.randn(9, 4), (2,) * 8)
