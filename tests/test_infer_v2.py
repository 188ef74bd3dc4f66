"""The official class: its signature, what it returns and writes, and what it refuses."""

from __future__ import annotations

import inspect
import logging
import os
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indextts import checkpoints
from indextts.errors import (
    AudioError,
    CheckpointError,
    ConfigError,
    EmotionError,
    IndexTTSError,
    TextError,
    UnsupportedOption,
)
from indextts.infer_v2 import IndexTTS2
from indextts.types import Progress

TEXT = "Hello there, my friend. How are you today? Goodbye, then."
SHORT: dict[str, Any] = {"max_mel_tokens": 8, "num_beams": 1, "seed": 3, "max_text_tokens_per_segment": 12}
SHORT["repair"] = False  # all that untrained weights say is faults


@pytest.fixture(scope="module")
def tts(tiny_model_dir: Path) -> IndexTTS2:
    return IndexTTS2(model_dir=tiny_model_dir, device="cpu")


@pytest.fixture(scope="module")
def voice(recordings: tuple[Path, Path]) -> str:
    return str(recordings[0])


def samples_of(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 22050)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def test_the_signature_is_the_official_one() -> None:
    assert list(inspect.signature(IndexTTS2).parameters) == [
        "cfg_path", "model_dir", "use_fp16", "device", "use_cuda_kernel", "use_deepspeed", "use_accel",
        "use_torch_compile", "use_qwen_emo", "aux_paths",
    ]  # fmt: skip
    parameters = inspect.signature(IndexTTS2.infer).parameters
    official = {
        "spk_audio_prompt": inspect.Parameter.empty, "text": inspect.Parameter.empty, "output_path": None,
        "emo_audio_prompt": None, "emo_alpha": 1.0, "emo_vector": None, "use_emo_text": False, "emo_text": None,
        "use_random": False, "interval_silence": 200, "verbose": False, "max_text_tokens_per_segment": 120,
        "stream_return": False, "more_segment_before": 0,
    }  # fmt: skip
    assert {name: p.default for name, p in list(parameters.items())[1 : len(official) + 1]} == official


@pytest.mark.filterwarnings("default", "ignore:unclosed event loop:ResourceWarning")  # importing DeepSpeed warns
def test_the_snippet_of_the_guide(
    tiny_model_dir: Path,
    voice: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "checkpoints").symlink_to(tiny_model_dir)
    monkeypatch.chdir(tmp_path)
    tts = IndexTTS2(
        cfg_path="checkpoints/config.yaml", model_dir="checkpoints", device="cpu", use_fp16=True, use_cuda_kernel=True,
        use_deepspeed=True,
    )  # fmt: skip
    warned = [record.message for record in caplog.records if record.name == "indextts.engine.engine"]
    assert warned == ["fp16: fp32 (needs a CUDA device)", "cuda-kernel: off (needs a CUDA device)"]
    out = tts.infer(spk_audio_prompt=voice, text=TEXT, output_path="out/gen.wav", batch_size=4, max_mel_tokens=8)
    assert out == "out/gen.wav" and samples_of(tmp_path / out).any()
    report = {entry.option: entry for entry in tts.engine.report.entries}
    assert {name: entry.honoured for name, entry in report.items()} == {
        "fp16": False, "deepspeed": True, "cuda-kernel": False,
    }  # fmt: skip


@pytest.fixture
def bundled(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model in the place of the bundled one."""
    monkeypatch.setattr(checkpoints, "BUNDLED_DIR", tiny_model_dir)
    return tiny_model_dir


@pytest.mark.parametrize("folder_exists", [True, False])
def test_without_official_files_the_bundled_model_is_used(
    bundled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    folder_exists: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    if folder_exists:
        Path("checkpoints").mkdir()
    tts = IndexTTS2(cfg_path="checkpoints/config.yaml", model_dir="checkpoints", device="cpu")
    assert tts.engine.files.root == bundled and tts.engine.files.bundled
    told = [record.message for record in caplog.records if "bundled" in record.message]
    assert len(told) == 1 and "indextts download" in told[0]


def test_a_configuration_that_the_bundled_model_cannot_use_is_told(
    bundled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine.yaml").write_text("version: 2.0\n")
    IndexTTS2(cfg_path=tmp_path / "mine.yaml", model_dir=tmp_path, device="cpu")
    assert any("mine.yaml is not used" in record.message for record in caplog.records)


def test_official_files_without_their_configuration(bundled: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    for name in ("gpt.pth", "s2mel.pth", "bpe.model"):
        (tmp_path / name).symlink_to(tiny_model_dir / name)
    with pytest.raises(CheckpointError) as caught:
        IndexTTS2(cfg_path=tmp_path / "config.yaml", model_dir=tmp_path, device="cpu")
    for part in ("config.yaml", "feat1.pt", "w2v-bert-2.0", "indextts download"):
        assert part in str(caught.value)
    assert "gpt.pth" not in str(caught.value)


def test_own_places_of_auxiliary_models(tiny_model_dir: Path, tmp_path: Path) -> None:
    places = {"campplus": tmp_path / "style.bin"}
    places["campplus"].symlink_to(tiny_model_dir / "hf_cache" / "campplus_cn_common.bin")
    tts = IndexTTS2(model_dir=tiny_model_dir, device="cpu", aux_paths=places)
    assert tts.engine.files.campplus == places["campplus"]
    with pytest.raises(CheckpointError, match="vocoder"):
        IndexTTS2(model_dir=tiny_model_dir, device="cpu", aux_paths={"vocoder": "x"})


@pytest.mark.parametrize("interval", [200, 1, 0])
def test_returned_written_and_streamed_are_the_same(tts: IndexTTS2, voice: str, tmp_path: Path, interval: int) -> None:
    rate, whole = tts.infer(voice, TEXT, interval_silence=interval, **SHORT)
    assert rate == 22050 and whole.dtype == np.int16 and whole.shape == (len(whole), 1)
    path = tmp_path / "new" / "out.wav"
    assert tts.infer(voice, TEXT, path, interval_silence=interval, **SHORT) == path
    assert np.array_equal(samples_of(path), whole[:, 0])

    streamed = tmp_path / "streamed.wav"
    stream = tts.infer(voice, TEXT, streamed, interval_silence=interval, stream_return=True, **SHORT)
    assert isinstance(stream, Iterator)
    pieces = list(stream)
    for piece in pieces:
        assert isinstance(piece, torch.Tensor) and piece.dtype == torch.float32 and piece.shape[0] == 1
    if interval:  # a silence follows every segment, the last one too (spec 12.1)
        assert not any(piece.any() for piece in pieces[1::2])
        assert all(piece.shape[1] == 22050 * interval // 1000 for piece in pieces[1::2])
        pieces = pieces[:-1]
    assert np.array_equal(torch.cat(pieces, dim=1)[0].numpy(), whole[:, 0])
    assert np.array_equal(samples_of(streamed), whole[:, 0])


def test_an_existing_file_is_replaced_only_by_a_result(tts: IndexTTS2, voice: str, tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    path.write_bytes(b"precious")
    with pytest.raises(TextError):
        tts.infer(voice, "", path)
    assert path.read_bytes() == b"precious"
    tts.infer(voice, "Hello.", path, **SHORT)
    assert len(samples_of(path))
    assert os.listdir(tmp_path) == ["out.wav"]


def test_batches_sound_like_single_segments(tts: IndexTTS2, voice: str) -> None:
    greedy = {**SHORT, "do_sample": False}
    (_, one), (_, many) = (tts.infer(voice, TEXT, batch_size=size, **greedy) for size in (1, 4))
    assert one.shape == many.shape  # the same codes; the noise is drawn in another order


def test_emotions_differ(tts: IndexTTS2, voice: str, recordings: tuple[Path, Path]) -> None:
    calls: list[dict[str, Any]] = [
        {}, {"emo_audio_prompt": recordings[1]}, {"emo_audio_prompt": recordings[1], "emo_alpha": 0.5},
        {"emo_vector": [0, 0.9, 0, 0, 0, 0, 0, 0]}, {"emo_vector": [0, 0.9, 0, 0, 0, 0, 0, 0], "emo_alpha": 0.5},
    ]  # fmt: skip
    results = [tts.infer(voice, "Hello.", **SHORT, **call)[1].tobytes() for call in calls]
    assert len(set(results)) == len(calls)
    both = tts.infer(voice, "Hello.", **SHORT, **calls[3], emo_audio_prompt=recordings[1])  # the vector wins
    assert both[1].tobytes() == results[3]
    assert tts.infer(voice, "Hello.", **SHORT, emo_audio_prompt=recordings[1], emo_alpha=0.0)[1].tobytes() != results[1]


def test_progress_and_verbose(tts: IndexTTS2, voice: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    steps: list[Progress] = []
    tts.infer(voice, "Hello.", on_progress=steps.append, verbose=True, **SHORT)
    assert steps[-1].fraction == 1.0
    assert "real-time factor" in caplog.text


def test_both_names_of_quick_streaming(tts: IndexTTS2, monkeypatch: pytest.MonkeyPatch, voice: str) -> None:
    """Spec quirk 3."""
    seen: list[int] = []

    def synthesize(request: Any, on_progress: object) -> Any:
        seen.append(request.quick_streaming_tokens)
        raise TextError("enough")

    monkeypatch.setattr(tts.engine, "synthesize", synthesize)
    for call in ({}, {"more_segment_before": 20}, {"quick_streaming_tokens": 30}):
        with pytest.raises(TextError, match="enough"):
            tts.infer(voice, TEXT, **call)
    assert seen == [0, 20, 30]


def test_options_of_the_draw(tts: IndexTTS2) -> None:
    assert tts._sampling({}) == tts.engine.sampling_defaults
    assert tts._sampling({"top_k": None}).top_k == 0
    assert tts._sampling({"typical_sampling": True, "typical_mass": 0.5}).typical_mass == 0.5


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        ({"text": ""}, TextError, "nothing to speak"),
        ({"text": " ?!"}, TextError, "nothing to speak"),
        ({"spk_audio_prompt": "nowhere.wav"}, AudioError, "nowhere.wav"),
        ({"emo_audio_prompt": "nowhere.wav"}, AudioError, "nowhere.wav"),
        ({"emo_vector": [0.1] * 7}, EmotionError, "8 values, not 7"),
        ({"emo_vector": ["sad"] * 8}, EmotionError, "eight numbers"),
        ({"emo_vector": 0.5}, EmotionError, "eight numbers"),
        ({"duration_factor": 3.0}, ConfigError, "duration_factor"),
        ({"duration_factor": 1.2, "duration_s": 2.0}, ConfigError, "not both"),
        ({"pace": 1.0}, ConfigError, "pace"),
        ({"temperature": 0}, ConfigError, "temperature"),
        ({"batch_size": 0}, ConfigError, "batch size"),
        ({"seed": -1}, ConfigError, "seed"),
    ],
)
@pytest.mark.parametrize("stream_return", [False, True])
def test_refusals_by_name_write_nothing(
    tts: IndexTTS2,
    voice: str,
    tmp_path: Path,
    call: dict[str, Any],
    error: type[IndexTTSError],
    says: str,
    stream_return: bool,
) -> None:
    path = tmp_path / "out" / "never.wav"
    with pytest.raises(error, match=says):
        result = tts.infer(**{"spk_audio_prompt": voice, "text": TEXT, **call}, output_path=path,
                           stream_return=stream_return)  # fmt: skip
        list(result)
    assert not list(tmp_path.iterdir())


def test_options_of_our_own(tts: IndexTTS2, voice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, speak, joined = [], tts.engine.synthesize, {**SHORT, "interval_silence": 0}
    monkeypatch.setattr(tts.engine, "synthesize", lambda request, *more: asked.append(request) or speak(request, *more))
    (rate, plain), (_, slow) = (tts.infer(voice, TEXT, **joined, **more) for more in ({}, {"duration_factor": 2.0}))
    assert len(slow) > 1.5 * len(plain)
    (_, timed) = tts.infer(voice, TEXT, **joined, duration_s=0.8 * len(plain) / rate)
    assert len(timed) < len(plain)
    tts.infer(voice, "Hello.", max_mel_tokens=4, num_beams=1)
    assert [request.repair for request in asked] == [False, False, False, True]


@pytest.mark.parametrize("make", [lambda: IndexTTS2(use_accel=True), lambda: IndexTTS2(use_torch_compile=True)])
def test_what_is_not_part_of_it(make: Callable[[], IndexTTS2]) -> None:
    with pytest.raises(UnsupportedOption, match="not part of this version"):
        make()


def test_a_device_that_is_not_there(tiny_model_dir: Path) -> None:
    with pytest.raises(UnsupportedOption, match="cuda:99"):
        IndexTTS2(model_dir=tiny_model_dir, device="cuda:99")
