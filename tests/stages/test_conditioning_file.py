"""What a model knows of a saved voice is kept in a file: it is used where it fits, and nowhere else."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from indextts.config import EngineConfig, SamplingParams
from indextts.engine import Engine
from indextts.stages.conditioning_file import MAX_FILE_BYTES, model_fingerprint
from indextts.types import FromAudio, FromVector, SynthesisRequest, VoicePrompt
from indextts.voices import VoiceLibrary

ROOT = Path(__file__).parents[2]
SAMPLING = SamplingParams(max_mel_tokens=10, num_beams=1)


@pytest.fixture
def load(tiny_model_dir: Path) -> Callable[..., Engine]:
    """Loads the tiny model anew, as another process would."""

    def load_engine(model_dir: Path = tiny_model_dir) -> Engine:
        return Engine.load(EngineConfig(model_dir=model_dir, device="cpu"))

    return load_engine


@pytest.fixture
def library(tmp_path: Path, recordings: tuple[Path, Path]) -> VoiceLibrary:
    library = VoiceLibrary(tmp_path / "voices", None)
    library.save("Anna", recordings[0].read_bytes())
    return library


def kept(library: VoiceLibrary, name: str = "Anna") -> Path:
    path = library.get(name).conditioning_path
    assert path is not None
    return path


def ask(prompt: VoicePrompt, **more: Any) -> SynthesisRequest:
    return SynthesisRequest("Hello there.", prompt, sampling=SAMPLING, seed=7, repair=False, **more)


def heard(engine: Engine) -> list[str]:
    """The recordings that the networks of ``engine`` listen to from now on."""
    stage, names = engine.stages.conditioning, []
    for method in ("_voice", "_recorded_emotion"):
        original = getattr(stage, method)
        setattr(stage, method, lambda prompt, run=original: (names.append(prompt.name), run(prompt))[1])
    return names


SECOND_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from indextts.config import EngineConfig, SamplingParams
from indextts.engine import Engine
from indextts.types import SynthesisRequest
from indextts.voices import VoiceLibrary

model_dir, folder, out = map(Path, sys.argv[1:])
engine = Engine.load(EngineConfig(model_dir=model_dir, device="cpu"))

def must_not_run(*_):
    raise AssertionError("a conditioning network ran")

for network in (engine.models.semantic_encoder, engine.models.semantic_codec, engine.models.style_encoder):
    network.forward = must_not_run
engine.models.semantic_codec.quantize = engine.models.gpt.condition = engine.models.gpt.emotion_vector = must_not_run
prompt = VoiceLibrary(folder, None).get("Anna").prompt()
sampling = SamplingParams(max_mel_tokens=10, num_beams=1)
result = engine.synthesize(SynthesisRequest("Hello there.", prompt, sampling=sampling, seed=7, repair=False))
out.write_bytes(result.samples.tobytes())
"""


def test_a_second_process_does_not_listen_again(
    load: Callable[..., Engine], library: VoiceLibrary, tiny_model_dir: Path, tmp_path: Path
) -> None:
    prompt = library.get("Anna").prompt()
    unkept = load().synthesize(ask(dataclasses.replace(prompt, conditioning_path=None))).samples
    assert not kept(library).exists()
    first = load().synthesize(ask(prompt)).samples
    assert np.array_equal(first, unkept) and kept(library).is_file()
    words = [str(tiny_model_dir), str(library.folder), str(tmp_path / "samples")]
    program = f"import torch; torch.set_num_threads(1)\n{SECOND_PROCESS}"
    run = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert np.array_equal(np.frombuffer((tmp_path / "samples").read_bytes(), np.int16), first)


def test_every_emotion_is_as_without_a_file(
    load: Callable[..., Engine], library: VoiceLibrary, recordings: tuple[Path, Path]
) -> None:
    prompt, other = library.get("Anna").prompt(), VoicePrompt.from_path(recordings[1])
    plain = VoicePrompt(prompt.data)
    load().synthesize(ask(prompt))
    engine, fresh = load(), load()
    names = heard(engine)
    vector = FromVector((0.0, 0.6, *[0.0] * 6))
    for saved, unsaved in [
        (ask(prompt, emotion=vector), ask(plain, emotion=vector)),
        (ask(prompt, emotion=FromAudio(other, 0.5)), ask(plain, emotion=FromAudio(other, 0.5))),
        (ask(other, emotion=FromAudio(prompt, 0.5)), ask(other, emotion=FromAudio(plain, 0.5))),
    ]:
        assert np.array_equal(engine.synthesize(saved).samples, fresh.synthesize(unsaved).samples)
    assert set(names) == {other.name}


def damaged(content: bytes) -> dict[str, bytes]:
    """Files that are none, by what is wrong with them."""
    tensors = safetensors.torch.load(content)
    header = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + header])["__metadata__"]

    def changed(**new: torch.Tensor) -> bytes:
        return safetensors.torch.save({**tensors, **new}, metadata)

    missing = {name: tensor for name, tensor in tensors.items() if name != "style"}
    return {
        "empty": b"",
        "cut off": content[: len(content) // 2],
        "a bit flipped in the header": content[:20] + bytes([content[20] ^ 1]) + content[21:],
        "a header without end": (2**62).to_bytes(8, "little") + content[8:],
        "half a header": content[: 8 + header // 2],
        "a pickle": pickle.dumps(tensors),
        "a tensor too many": changed(more=torch.zeros(1)),
        "a tensor is missing": safetensors.torch.save(missing, metadata),
        "of another shape": changed(style=torch.zeros(1, 3)),
        "without frames": changed(prompt_mel=tensors["prompt_mel"][..., :0].contiguous()),
        "whole numbers": changed(style=torch.zeros_like(tensors["style"], dtype=torch.int32)),
        "not a number": changed(emotion_vector=torch.full_like(tensors["emotion_vector"], float("nan"))),
        "huge": content + bytes(MAX_FILE_BYTES),
    }


def test_damaged_files_are_made_anew(
    load: Callable[..., Engine], library: VoiceLibrary, caplog: pytest.LogCaptureFixture
) -> None:
    prompt, engine = library.get("Anna").prompt(), load()
    stage = engine.stages.conditioning
    expected = stage.known_voice(prompt, kept(library)).tensors()
    content = kept(library).read_bytes()
    names = heard(engine)
    for what, wrong in damaged(content).items():
        kept(library).write_bytes(wrong)
        stage.cache._entries.clear()
        names.clear()
        caplog.clear()
        found = stage.known_voice(prompt, kept(library)).tensors()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items()), what
        assert names == [prompt.name] * 2 and "listening to Anna.wav again" in caplog.text, what
        assert len(kept(library).read_bytes()) == len(content), what


def test_another_model_or_recording_is_not_taken_for_this_one(
    load: Callable[..., Engine], library: VoiceLibrary, recordings: tuple[Path, Path], tiny_model_dir: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    first = load()
    first.synthesize(ask(library.get("Anna").prompt()))
    content = kept(library).read_bytes()

    other_dir = shutil.copytree(tiny_model_dir, tmp_path / "other")
    table = torch.load(other_dir / "gpt.pth", weights_only=True)
    weights = table.get("model", table)
    name = next(name for name in weights if name.startswith("emovec_layer"))
    weights[name] += 0.5
    torch.save(table, other_dir / "gpt.pth")
    other = load(other_dir)
    names = heard(other)
    plain = VoicePrompt(library.get("Anna").prompt().data)
    assert np.array_equal(
        other.synthesize(ask(library.get("Anna").prompt())).samples, load(other_dir).synthesize(ask(plain)).samples
    )
    assert names == ["Anna.wav"] * 2 and kept(library).read_bytes() != content

    (library.folder / "Anna.wav").write_bytes(recordings[1].read_bytes())  # replaced by hand
    engine = load(other_dir)
    names = heard(engine)
    replaced = VoicePrompt.from_path(recordings[1])
    assert np.array_equal(
        engine.synthesize(ask(library.get("Anna").prompt())).samples,
        load(other_dir).synthesize(ask(replaced)).samples,
    )
    assert names == ["Anna.wav"] * 2


def test_the_fingerprint_is_of_the_weights_and_their_precision(load: Callable[..., Engine]) -> None:
    models = load().models
    fingerprint = model_fingerprint(models)
    assert fingerprint == model_fingerprint(load().models)
    models.gpt.half()
    halved = model_fingerprint(models)
    assert halved != fingerprint
    models.gpt.float()
    next(models.style_encoder.parameters()).add_(0.1)
    assert model_fingerprint(models) not in (fingerprint, halved)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"fp16": True}, {"cpu_offload": True}])
def test_on_a_gpu(library: VoiceLibrary, tiny_model_dir: Path, options: dict[str, Any]) -> None:
    config = EngineConfig(model_dir=tiny_model_dir, device="cuda", **options)
    request = ask(library.get("Anna").prompt())
    first = Engine.load(config).synthesize(request).samples
    second = Engine.load(config)
    names = heard(second)
    assert np.array_equal(second.synthesize(request).samples, first) and names == []
    on_cpu = Engine.load(EngineConfig(model_dir=tiny_model_dir, device="cpu"))
    names = heard(on_cpu)
    assert len(on_cpu.synthesize(request).samples) and names == ["Anna.wav"] * 2


def test_a_place_that_cannot_be_written_is_no_reason_not_to_speak(
    load: Callable[..., Engine], library: VoiceLibrary, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = dataclasses.replace(library.get("Anna").prompt(), conditioning_path=tmp_path / "nowhere" / "a")
    with caplog.at_level(logging.WARNING):
        assert len(load().synthesize(ask(nowhere)).samples)
    assert "cannot keep what was heard of Anna.wav" in caplog.text
