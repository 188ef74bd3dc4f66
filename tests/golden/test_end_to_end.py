"""The whole run on tiny weights in the official file layout, tensor by tensor and sample by sample."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from indextts.infer_v2 import IndexTTS2
from indextts.types import VoicePrompt
from tests.golden.conftest import GoldenSet, compare
from tests.tiny_model import write_model

CASES = ("plain", "emo_audio", "emo_vector", "multi", "stream")


class Recorder:
    """A stage that keeps what it returned."""

    def __init__(self, stage: Callable[..., Any]) -> None:
        self.stage = stage
        self.results: list[Any] = []

    def __call__(self, *arguments: Any) -> Any:
        self.results.append(self.stage(*arguments))
        return self.results[-1]


@pytest.fixture(scope="module")
def tts(golden: GoldenSet, tmp_path_factory: pytest.TempPathFactory) -> IndexTTS2:
    folder = tmp_path_factory.mktemp("model")
    write_model(golden, folder)
    return IndexTTS2(model_dir=folder, device="cpu")


@pytest.mark.parametrize("name", CASES)
def test_case(golden: GoldenSet, tts: IndexTTS2, name: str) -> None:
    manifest = golden.manifest["end_to_end"]
    case = manifest["cases"][name]
    tensors = load_file(golden.dir / case["file"])

    def check(label: str, got: Tensor) -> None:
        want = tensors[f"out.{label}"]
        tolerance = manifest["atol_rel"] * want.float().abs().max().item()
        compare(f"{name}/{label}", got, want, tolerance, 0.0)

    engine = tts.engine
    recorders = {stage: Recorder(getattr(engine.stages, stage)) for stage in ("conditioning", "speech", "s2mel")}
    noises = iter([tensors[k] for k in sorted(tensors) if k.endswith(".noise")])
    stages, draw = engine.stages, engine.stages.s2mel.draw_noise
    engine.stages = dataclasses.replace(stages, **recorders)
    stages.s2mel.draw_noise = lambda segment, frames, generator: next(noises)[0][:, -frames:]
    try:
        call = {k: str(golden.dir / v) if k.endswith("audio_prompt") else v for k, v in case["call"].items()}
        result = tts.infer(**call, repair=False)
        pieces = list(result) if call.get("stream_return") else []
    finally:
        engine.stages, stages.s2mel.draw_noise = stages, draw

    (conditioning,) = recorders["conditioning"].results
    voice = conditioning.voice
    check("spk.cond_emb", voice.semantic_embedding)
    check("prompt_condition", voice.prompt_condition)
    check("ref_mel", voice.prompt_mel)
    check("style", voice.style)
    check("cond_latent", voice.speaker_latents)
    check("emovec", conditioning.emotion_vector)
    spoken = [speech for batch in recorders["speech"].results for speech in batch]
    mels = [mel for batch in recorders["s2mel"].results for mel in batch]
    assert len(spoken) == len([k for k in tensors if k.endswith(".codes_raw")])
    stop = torch.tensor([engine.models.config.gpt.stop_mel_token])
    for index, (speech, mel) in enumerate(zip(spoken, mels, strict=True)):
        check(f"seg{index}.text_ids", torch.tensor([speech.segment.token_ids]))
        codes = speech.codes if speech.reached_limit else torch.cat([speech.codes, stop])
        check(f"seg{index}.codes_raw", codes[None])
        check(f"seg{index}.latent", speech.latent[None])
        check(f"seg{index}.mel", mel)
    if pieces:
        for index, piece in enumerate(pieces):
            compare(f"{name}/stream{index}", piece, tensors[f"out.stream{index}"], 1.0, 0.0)
        assert f"out.stream{len(pieces)}" not in tensors
    else:
        rate, samples = result
        assert rate == engine.sample_rate_hz
        difference = torch.from_numpy(samples).long() - tensors["out.final_int16"]
        assert samples.dtype == "int16" and difference.abs().max() <= 1


def test_batches_equal_single_segments(golden: GoldenSet, tts: IndexTTS2) -> None:
    call = dict(golden.manifest["end_to_end"]["cases"]["multi"]["call"])
    call["spk_audio_prompt"] = golden.dir / call["spk_audio_prompt"]
    stages = tts.engine.stages
    speech = Recorder(stages.speech)
    tts.engine.stages = dataclasses.replace(stages, speech=speech)  # type: ignore[arg-type]
    try:
        for batch_size in (1, 4):
            tts.infer(**call, batch_size=batch_size, seed=1, repair=False)
    finally:
        tts.engine.stages = stages
    spoken = [item for batch in speech.results for item in batch]
    half = len(spoken) // 2
    assert len(speech.results) == half + 1
    for one, many in zip(spoken[:half], spoken[half:], strict=True):
        assert torch.equal(one.codes, many.codes)


def test_voices_do_not_mix(golden: GoldenSet, tts: IndexTTS2, tmp_path: Path) -> None:
    """A voice is known by its content: the same path with another recording is another voice."""
    names = golden.manifest["end_to_end"]["reference_audio"]
    path = tmp_path / "voice.wav"
    styles = []
    for key in ("spk", "emo", "spk"):
        shutil.copy(golden.dir / names[key], path)
        styles.append(tts.engine.stages.conditioning.voice(VoicePrompt.from_path(path)).style)
    assert torch.equal(styles[0], styles[2])
    assert not torch.allclose(styles[0], styles[1])
