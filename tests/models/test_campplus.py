"""CAM++ as a module: the released layout, batches, and gradients."""

from __future__ import annotations

import torch

from indextts.config import StyleEncoderConfig
from indextts.models.campplus import SEGMENT_FRAMES, CAMLayer, CAMPPlus

TINY = StyleEncoderConfig(dim=24, growth_rate=4, bn_size=2, init_channels=16)


def test_released_sizes() -> None:
    state = CAMPPlus(StyleEncoderConfig()).state_dict()
    assert len(state) == 937
    assert sum(v.numel() for v in state.values()) == 6_930_842
    assert state["xvector.block3.tdnnd16.cam_layer.linear1.weight"].shape == (64, 128, 1)
    assert state["xvector.dense.linear.weight"].shape == (192, 1024, 1)


def test_a_batch_equals_its_rows() -> None:
    torch.manual_seed(0)
    model = CAMPPlus(TINY).eval()
    feat = torch.randn(3, 250, 80)
    with torch.no_grad():
        one_by_one = torch.cat([model(row[None]) for row in feat])
        torch.testing.assert_close(model(feat), one_by_one, atol=1e-5, rtol=1e-4)


def test_context_is_utterance_mean_plus_window_mean() -> None:
    torch.manual_seed(0)
    layer = CAMLayer(8, 4, dilation=2).eval()
    x = torch.randn(1, 8, 2 * SEGMENT_FRAMES + 37)
    windows = [w.mean(-1, keepdim=True).expand_as(w) for w in x.split(SEGMENT_FRAMES, dim=-1)]
    context = x.mean(-1, keepdim=True) + torch.cat(windows, dim=-1)
    mask = torch.sigmoid(layer.linear2(torch.relu(layer.linear1(context))))
    torch.testing.assert_close(layer(x), layer.linear_local(x) * mask)


def test_every_parameter_gets_a_finite_gradient() -> None:
    torch.manual_seed(0)
    model = CAMPPlus(TINY).train()
    model(torch.randn(4, 120, 80)).square().sum(-1).sqrt().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
