"""The flow that learns larger steps: its targets are the finished flow's own steps; it runs from data to weights."""

from __future__ import annotations

import logging
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from indextts.config_file import load_model_config
from indextts.models import flow_matching
from indextts.models.s2mel import S2Mel
from tests.training.no_waiting import NoWaiting
from tests.training.test_train_s2mel import batches, latents, root  # noqa: F401 (fixtures)
from training import distil_s2mel, train_s2mel
from training.s2mel_batches import S2MelBatches


def flow_of(root: Path) -> S2Mel:  # noqa: F811
    torch.manual_seed(0)
    return S2Mel(load_model_config(root / "config.yaml").s2mel).eval()


def test_guidance_is_that_of_the_solver(batches: S2MelBatches, root: Path) -> None:  # noqa: F811
    flow, batch = flow_of(root), batches.gather(batches.draw(batches.usable[:2]))
    mu = train_s2mel.conditions(flow, batch, None)
    state, t = torch.randn(batch.mel.shape) * batch.speech, torch.full((2,), 0.3)
    known = flow_matching.guided_conditions(flow.estimator, batch.prompt_mel, batch.x_lens, batch.style, mu, 0.7)
    with torch.no_grad():
        modulation = flow.estimator.modulate(t[:1])
        expected = flow_matching.guided_velocity(flow.estimator, state, modulation, known, 0.7)
        got = distil_s2mel.guided_velocity(flow.estimator, batch, mu, state, t, 0.7)
    torch.testing.assert_close(got * batch.speech, expected * batch.speech, rtol=1e-4, atol=1e-4)


def test_the_target_is_where_two_steps_lead(batches: S2MelBatches, root: Path) -> None:  # noqa: F811
    flow, batch = flow_of(root), batches.gather(batches.draw(batches.usable[:2]))
    training = distil_s2mel.DistilStep(flow, flow.estimator, 1, 0.7, batches.device)
    mu = train_s2mel.conditions(flow, batch, None)
    noise = torch.randn(batch.mel.shape)
    state = noise * batch.speech
    with torch.no_grad():
        moved = state + training.target(batch, mu, state, torch.zeros(2))
        solved = flow_matching.solve(
            flow.estimator, noise, mu, batch.prompt_mel, batch.style,
            steps=2, cfg_rate=0.7, x_lens=batch.x_lens, prompt_lens=batch.prompt_lens,
        )  # fmt: skip
    torch.testing.assert_close(moved, solved * batch.speech, rtol=1e-3, atol=1e-3)


def test_a_step_learns_and_never_waits(
    batches: S2MelBatches,  # noqa: F811
    latents: train_s2mel.Latents,  # noqa: F811
    root: Path,  # noqa: F811
) -> None:
    teacher, student = flow_of(root).requires_grad_(False), flow_of(root)
    training = distil_s2mel.DistilStep(teacher, student.estimator, 2, 0.7, batches.device)
    for group in training.optimizer.param_groups:
        group["lr"] = 1e-3
    rows, told = latents(batches.draw(batches.usable[:6]))
    batch = batches.gather(rows)
    inputs = distil_s2mel.step_inputs(batch, told, 2, torch.Generator().manual_seed(0))
    assert set(inputs[1].tolist()) <= {0.0, 0.5}
    assert len(inputs) == 3 + len(fields(batch)) - 2
    with NoWaiting():
        loss = training.compute(*inputs, **batch.widths)["loss"]
    first = float(loss)
    for _ in range(15):
        last = float(training.compute(*inputs, **batch.widths)["loss"])
    assert 0 < last < 0.9 * first


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("stage", ["latents", "codes"])
def test_from_the_finished_flow_to_the_fast_one(
    stage: str,
    root: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    plain, config = root / "config.yaml", root / "fast.yaml"
    config.write_text(plain.read_text() + "  cfg_rate: 0\n")
    teacher = root / f"{train_s2mel.RESULT[stage]}.safetensors"
    train_s2mel.save_weights(teacher, flow_of(root).state_dict())
    (root / "s2mel.log").unlink(missing_ok=True)
    for path in (plain, config):
        command = ["distil", "--smoke", "--stage", stage, "--data", str(root), "--out", str(root)]
        monkeypatch.setattr(sys, "argv", [*command, "--config", str(path)])
        if path == plain:
            with pytest.raises(SystemExit, match=r"cfg_rate must be 0, not 0\.7"):
                distil_s2mel.main()
        else:
            distil_s2mel.main()
    logging.getLogger("training.s2mel").handlers.clear()
    weights, before = load_file(root / "s2mel.safetensors"), load_file(teacher)
    changed = {key for key in weights if not torch.equal(weights[key], before[key])}
    assert changed and all(key.startswith("cfm.estimator.") for key in changed)
    log = (root / "s2mel.log").read_text()
    assert "the finished flow, 12 steps, guidance 0.7" in log and "the student at the end, 2 steps, guidance 0" in log
