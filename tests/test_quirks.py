"""Behaviour of the released model that looks wrong and is not ours to change, where no other test shows it alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from indextts.audio import log_mel
from indextts.config import SamplingParams, SpectrogramConfig
from indextts.decoding.backend import EagerBackend
from indextts.decoding.search import generate
from indextts.engine import Engine
from indextts.models.gpt import UnifiedVoice
from indextts.types import FromVoice, VoicePrompt

ROOT = Path(__file__).parents[1]
QUIRKS = 43


@pytest.fixture(scope="module")
def gpt(tiny_engine: Engine) -> Iterator[UnifiedVoice]:
    """The tiny language model, which will not stop by itself."""
    model = tiny_engine.models.gpt
    bias = model.mel_head.bias.clone()
    model.mel_head.bias[model.config.stop_mel_token] = -1e4
    yield model
    model.mel_head.bias.copy_(bias)


@pytest.fixture(scope="module")
def conds(tiny_engine: Engine, recordings: tuple[Path, Path]) -> tuple[Tensor, Tensor]:
    conditioning = tiny_engine.stages.conditioning(VoicePrompt.from_path(recordings[0]), FromVoice(), "", 0)
    return conditioning.voice.speaker_latents, conditioning.emotion_vector


def test_positions_of_codes_differ_between_the_two_passes(gpt: UnifiedVoice, conds: tuple[Tensor, Tensor]) -> None:
    """Quirk 8."""
    used: list[int] = []
    hook = gpt.mel_pos_embedding.register_forward_hook(lambda module, args, output: used.extend(args[0].tolist()))
    try:
        text = torch.tensor([[5, 6, 7]])
        params = SamplingParams(num_beams=1, do_sample=False, max_mel_tokens=5)
        (codes,) = generate(EagerBackend(gpt), *gpt.prefix(*conds, text), params).codes
        assert used == [0, 2, 3, 4, 5]
        used.clear()
        gpt.latents(*conds, text, codes[None])
        assert used == [0, 1, 2, 3, 4]
    finally:
        hook.remove()


@pytest.mark.parametrize("num_beams", [1, 2])
def test_code_one_is_penalised_from_the_first_step(
    gpt: UnifiedVoice, conds: tuple[Tensor, Tensor], num_beams: int
) -> None:
    """Quirk 17: the history that the penalty looks at holds code 1 in place of the prefix."""
    before = gpt.mel_head.bias[1].item()
    logits: Tensor = EagerBackend(gpt).prefill(*gpt.prefix(*conds, torch.tensor([[5, 6]])), num_beams=1, max_codes=1)
    gpt.mel_head.bias[1] += logits.max() - logits[0, 1] + 0.5
    try:
        first = {}
        for penalty in (1.0, 10.0):
            params = SamplingParams(
                num_beams=num_beams, do_sample=False, repetition_penalty=penalty, max_mel_tokens=1
            )
            (codes,) = generate(EagerBackend(gpt), *gpt.prefix(*conds, torch.tensor([[5, 6]])), params).codes
            first[penalty] = codes.tolist()
    finally:
        gpt.mel_head.bias[1] = before
    assert first[1.0] == [1] and first[10.0] != [1]


def test_start_and_stop_ids_in_a_text_are_dropped_in_the_first_pass_only(
    gpt: UnifiedVoice, conds: tuple[Tensor, Tensor]
) -> None:
    """Quirk 26."""
    clean, littered = torch.tensor([[5, 6]]), torch.tensor([[5, 0, 6, 1]])
    expected, _ = gpt.prefix(*conds, clean)
    prefix, mask = gpt.prefix(*conds, littered)
    assert mask.tolist() == [[False] * 2 + [True] * expected.shape[1]]
    assert not prefix[:, :2].any() and torch.equal(prefix[:, 2:], expected)
    codes = torch.tensor([[3, 4, 2]])
    assert not torch.allclose(gpt.latents(*conds, clean, codes), gpt.latents(*conds, littered, codes))


def test_conditioning_tracks_no_gradients(conds: tuple[Tensor, Tensor]) -> None:
    """Quirk 28, which is not kept."""
    assert all(not tensor.requires_grad for tensor in conds)


def test_the_upper_limit_of_the_mel_filters_is_the_configured_one() -> None:
    """Quirk 30, which is not kept: any number used to mean 8000 Hz."""
    wave = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    mels = [log_mel(wave, SpectrogramConfig(fmax=fmax)) for fmax in (None, 8000.0, 6000.0)]
    assert not torch.allclose(mels[0], mels[1]) and not torch.allclose(mels[1], mels[2])


def test_the_table_of_quirks_is_complete_and_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", (ROOT / "docs" / "quirks.md").read_text(encoding="utf-8"), re.M)
    assert [int(number) for number, _ in rows] == list(range(1, QUIRKS + 1))
    for number, tests in rows:
        named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", tests)
        assert named or tests == "none needed", f"quirk {number}"
        for file, name in named:
            content = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert not name or f"def {name}(" in content, f"quirk {number}: {file}::{name}"
