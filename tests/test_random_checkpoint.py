"""Random model folders: the official layout and shapes, and they load and speak like any model."""

from __future__ import annotations

import dataclasses
import fnmatch
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from indextts import cli
from indextts.checkpoints import BUNDLED_DIR, DETERMINISTIC_BUFFERS, locate, read_tensors
from indextts.config import EngineConfig, ModelConfig, SamplingParams
from indextts.engine import Engine
from indextts.errors import ConfigError
from indextts.manifest import compare
from indextts.models import s2mel, semantic_codec
from indextts.random_checkpoint import character_vocabulary, official_files, write_random_checkpoint
from indextts.types import SynthesisRequest, VoicePrompt
from tests.test_loading import released


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "tiny"
    assert cli.main(["make-random", "--size", "tiny", "--seed", "3", str(folder)]) == 0
    return folder


def speak(folder: Path, codes: int) -> Engine:
    """Load strictly, and speak at most ``codes`` codes."""
    engine = Engine.load(EngineConfig(model_dir=folder, device="cpu", qwen_emotion=False))
    voice = VoicePrompt.from_path(BUNDLED_DIR.parents[1] / "examples" / "voice_01.wav")
    sampling = SamplingParams(num_beams=1, max_mel_tokens=codes, top_k=0, top_p=1.0)
    result = engine.synthesize(SynthesisRequest("HELLO.", voice, sampling=sampling, seed=1, repair=False))
    assert len(result.samples) > 256 and result.samples.std() > 0
    return engine


def test_it_loads_and_speaks(tiny: Path) -> None:
    engine = speak(tiny, 30)
    assert engine.files is not None and engine.files.gpt == tiny / "gpt.pth"
    assert engine.models.config.gpt.layers == 2


def test_the_layout_is_the_official_one(tiny: Path) -> None:
    vocoder = torch.load(tiny / "hf_cache" / "bigvgan" / "bigvgan_generator.pt", weights_only=True)["generator"]
    assert {"conv_pre.weight_g", "conv_pre.weight_v"} <= vocoder.keys() and "conv_pre.weight" not in vocoder
    checkpoint = torch.load(tiny / "s2mel.pth", weights_only=True)
    assert checkpoint["net"].keys() == {"cfm", "length_regulator", "gpt_layer"}
    assert torch.load(tiny / "feat2.pt", weights_only=True).shape == (73, 32)
    assert all(file.state == "ok" for file in compare(tiny, locate(tiny)[1].paths()))


def test_seeds_and_numbers(tiny: Path, tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "same", "tiny", seed=3)
    write_random_checkpoint(tmp_path / "other", "tiny", seed=4)
    for name in ("gpt.pth", "hf_cache/w2v-bert-2.0/model.safetensors"):
        one, same, other = (read_tensors(folder / name) for folder in (tiny, tmp_path / "same", tmp_path / "other"))
        assert all(torch.equal(value, same[key]) for key, value in one.items())
        assert any(not torch.equal(value, other[key]) for key, value in one.items())
    weight = read_tensors(tiny / "gpt.pth")["gpt.h.0.attn.c_attn.weight"]
    assert weight.std() == pytest.approx(32**-0.5, rel=0.5) and weight.unique().numel() == weight.numel()


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            shapes |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            shapes[prefix + key] = list(value.shape)
    return shapes


def test_full_size_has_the_released_shapes() -> None:
    files = official_files(ModelConfig())
    for path, name, prefix, unused in (
        ("gpt.pth", "gpt", "", ()),
        ("s2mel.pth", "s2mel", "net.", s2mel.UNUSED_KEYS),
        ("hf_cache/w2v-bert-2.0/model.safetensors", "w2v_bert", "", ()),
        ("hf_cache/semantic_codec_model.safetensors", "semantic_codec", "", semantic_codec.UNUSED_KEYS),
        ("hf_cache/campplus_cn_common.bin", "campplus", "", ()),
        ("hf_cache/bigvgan/bigvgan_generator.pt", "bigvgan", "generator.", ()),
    ):
        ours = {key.removeprefix(prefix): shape for key, shape in flat(files[path]).items()}
        theirs = released(name)
        assert all(theirs[key] == shape for key, shape in ours.items()), path
        for key in theirs.keys() - ours.keys():
            assert any(fnmatch.fnmatchcase(key, pattern) for pattern in (*unused, *DETERMINISTIC_BUFFERS)), key


@pytest.mark.parametrize("size", [50, 800, 12000])
def test_vocabularies(size: int, tmp_path: Path) -> None:
    import sentencepiece

    vocabulary = sentencepiece.SentencePieceProcessor(model_proto=character_vocabulary(size))
    assert vocabulary.vocab_size() == size
    assert vocabulary.unk_id() not in vocabulary.encode("HELLO, 123.") and vocabulary.bos_id() == 0


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "gpt.pth").write_bytes(b"precious")
    with pytest.raises(ConfigError, match="is not empty"):
        write_random_checkpoint(tmp_path, "tiny")
    with pytest.raises(ConfigError, match="'huge'"):
        write_random_checkpoint(tmp_path / "new", "huge")
    assert cli.main(["make-random", "--full", str(tmp_path)]) == 1
    assert (tmp_path / "gpt.pth").read_bytes() == b"precious" and len(list(tmp_path.iterdir())) == 1


def test_names_are_official_at_every_size() -> None:
    names = {f.name: f.default for f in dataclasses.fields(ModelConfig) if isinstance(f.default, str)}
    assert names["gpt_checkpoint"] == "gpt.pth" and names["w2v_stat"] == "wav2vec2bert_stats.pt"


@pytest.mark.slow
def test_full_size_loads_and_speaks(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "full", "full")
    try:
        engine = speak(tmp_path / "full", 8)
        assert sum(p.numel() for net in engine.models.networks().values() for p in net.parameters()) > 1.4e9
    finally:
        shutil.rmtree(tmp_path / "full")  # pytest would keep 6.7 GB for days
