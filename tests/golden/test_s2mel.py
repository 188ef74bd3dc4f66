"""Spec 9: length regulator, projection of the latents, one call of the estimator, and the whole integration."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from indextts.checkpoints import load_strictly
from indextts.config import LengthRegulatorConfig, S2MelConfig
from indextts.config_file import build_dataclass
from indextts.models.dit import DiT
from indextts.models.flow_matching import solve
from indextts.models.length_regulator import LengthRegulator
from indextts.models.s2mel import UNUSED_KEYS, S2Mel


def unused(module: str) -> tuple[str, ...]:
    """The patterns for one module of the file, without its name."""
    return tuple(key.removeprefix(f"{module}.") for key in UNUSED_KEYS if key.startswith(f"{module}."))


def estimator(case) -> DiT:
    sections = {name: case.config[name] for name in ("DiT", "wavenet", "style_encoder")}
    config: S2MelConfig = build_dataclass(S2MelConfig, sections, "s2mel")
    weights = {key.removeprefix("estimator."): value for key, value in case.weights.items()}
    model = DiT(config)
    patterns = tuple(key.removeprefix("estimator.") for key in unused("cfm"))
    load_strictly(model, weights, case.id, (*patterns, "*.freqs"))
    for name in ("t_embedder", "t_embedder2"):
        torch.testing.assert_close(model.get_buffer(f"{name}.freqs"), weights[f"{name}.freqs"])
    return model


@torch.no_grad()
def test_length_regulator(golden):
    case = golden.component("length_regulator")
    config = build_dataclass(
        LengthRegulatorConfig,
        {name: case.config[name] for name in ("channels", "in_channels", "sampling_ratios")},
        "s2mel.length_regulator",
    )
    model = LengthRegulator(config)
    load_strictly(model, case.weights, case.id, unused("length_regulator"))
    for name in case.names("out"):
        if name == "batch_y":
            case.check(name, model(case.input("xb"), case.input("ylens_b")))
        else:
            case.check(name, model(case.input("x"), torch.tensor([int(name.removeprefix("y_"))])))


@torch.no_grad()
def test_gpt_layer(golden):
    case = golden.component("gpt_layer")
    config = dataclasses.replace(S2MelConfig(), gpt_layer_dims=tuple(case.config["dims"]))
    model = S2Mel(config).gpt_layer
    load_strictly(model, case.weights, case.id)
    case.check("y", model(case.input("x")))


@torch.no_grad()
def test_estimator(golden):
    case = golden.component("dit_step")
    model = estimator(case)
    t = case.input("t")
    case.check("t_sin", model.t_embedder.sinusoids(t))
    case.check("t_emb", model.t_embedder(t))
    case.check("t_emb2", model.t_embedder2(t))
    names = ("x", "prompt_x", "x_lens", "t", "style", "cond")
    case.check("y", model(*(case.input(name) for name in names)))


@torch.no_grad()
@pytest.mark.parametrize("padding", [0, 5])
def test_solver(golden, padding: int):
    case = golden.component("cfm_solve")
    model = estimator(case)
    noise, mu, prompt, style = (case.input(name) for name in ("noise", "mu", "prompt", "style"))
    frames, prompt_frames = noise.shape[2], prompt.shape[2]
    # Padding must not matter, whatever it holds.
    noise = torch.nn.functional.pad(noise, (0, padding), value=3.0)
    mu = torch.nn.functional.pad(mu, (0, 0, 0, padding), value=-2.0)
    for name, (steps, cfg_rate) in case.config["_cases"].items():
        lengths = {"x_lens": case.input("x_lens"), "prompt_lens": torch.tensor([prompt_frames])} if padding else {}
        mel = solve(model, noise, mu, prompt, style, steps=steps, cfg_rate=cfg_rate, **lengths)
        assert not mel[..., frames:].any()
        case.check(name, mel[..., :frames])
