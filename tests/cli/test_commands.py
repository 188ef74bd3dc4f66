"""The commands without a model: what is refused before one is loaded, and with which exit code."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from indextts import cli
from indextts.cli.speech import SAMPLING_HELP
from indextts.config import SamplingParams
from indextts.errors import CheckpointError, IndexTTSError, SynthesisError, TextError, UnsupportedOption
from indextts.resources import EXAMPLES_DIR
from indextts.types import (
    AccelerationReport,
    AudioChunk,
    ChunkSchedule,
    FromAudio,
    FromText,
    FromVector,
    FromVoice,
    ReadEmotion,
    StageTimings,
    SynthesisRequest,
    SynthesisResult,
)


class SilentEngine:
    """Stands for ``indextts.engine.Engine``: remembers what it is asked for."""

    model_name, sample_rate_hz, max_text_tokens, max_mel_tokens = "silence", 22050, 400, 1000
    report = AccelerationReport("cpu")
    sampling_defaults = SamplingParams(temperature=0.5)
    languages, text_emotion_model, files = ("en",), "bundled", None
    requests: list[SynthesisRequest]
    error: IndexTTSError | None

    @classmethod
    def load(cls, config: Any) -> SilentEngine:
        cls.requests, cls.config = [], config
        return cls()

    def synthesize(self, request: SynthesisRequest, *callbacks: Any) -> SynthesisResult:
        self.requests.append(request)
        if self.error:
            raise self.error
        return self.result(request)

    def stream(self, request: SynthesisRequest, *callbacks: Any) -> Iterator[AudioChunk]:
        self.requests.append(request)
        for index in range(2):
            yield AudioChunk(np.full(100, index + 1, np.int16), 22050, index, 2)

    def result(self, request: SynthesisRequest) -> SynthesisResult:
        read = ReadEmotion("bundled", (0, 0, 0.75, 0, 0, 0.25, 0, 0)) if isinstance(request.emotion, FromText) else None
        samples, timings = np.ones(2205, np.int16), StageTimings(total_s=0.2)
        return SynthesisResult(samples, 22050, request.seed or 1, 1, timings, read_emotion=read)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[SilentEngine]:
    module = ModuleType("indextts.engine")
    module.Engine = SilentEngine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "indextts.engine", module)
    monkeypatch.setattr(SilentEngine, "error", None, raising=False)
    return SilentEngine


@pytest.fixture
def voice(tmp_path: Path) -> str:
    path = tmp_path / "voice.wav"
    path.write_bytes(b"a recording")
    return str(path)


def synth(voice: str, output: Path, *more: str) -> int:
    text = () if {"--text-file", "--stdin"} & set(more) else ("--text", "Hello there.")
    return cli.main(["synth", "--voice", voice, "-o", str(output), *text, *more])


def test_synth(engine: type[SilentEngine], voice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "out.wav"
    assert synth(voice, output, "--seed", "3", "--top-k", "5", "--no-do-sample", "--max_text_tokens", "60") == 0
    assert output.read_bytes()[:4] == b"RIFF"
    assert capsys.readouterr().out.startswith(f"Generated: {output}")
    request = engine.requests[0]
    assert request.text == "Hello there." and request.voice.data == b"a recording"
    assert (request.seed, request.emotion, request.max_text_tokens_per_segment) == (3, FromVoice(), 60)
    assert request.sampling == SamplingParams(temperature=0.5, top_k=5, do_sample=False)
    assert synth(voice, output, "--force", "--no-repair") == 0
    assert request.repair and not engine.requests[0].repair
    assert synth(voice, output, "--force", "--duration-factor", "1.2") == 0
    assert engine.requests[0].duration_factor == 1.2
    assert synth(voice, output, "--force", "--duration", "3.5") == 0
    assert engine.requests[0].duration_s == 3.5
    assert (request.duration_factor, request.duration_s) == (1.0, None)


@pytest.mark.parametrize("name", ["out.mp3", "out.FLAC", "out.opus"])
def test_the_ending_tells_the_format(engine: type[SilentEngine], voice: str, tmp_path: Path, name: str) -> None:
    assert synth(voice, tmp_path / name) == 0
    assert soundfile.info(tmp_path / name).format == {"mp3": "MP3", "flac": "FLAC", "opus": "OGG"}[name.lower()[4:]]


@pytest.mark.parametrize(
    ("flags", "chunks"), [([], ChunkSchedule()), (["--no-chunks"], None), (["--duration", "3"], None)]
)
def test_raw_samples_to_standard_output(
    engine: type[SilentEngine], capfdbinary: Any, flags: list[str], chunks: ChunkSchedule | None
) -> None:
    assert cli.main(["synth", "--text", "Hello.", "-o", "-", "--format", "pcm", *flags]) == 0
    samples = np.frombuffer(capfdbinary.readouterr().out, "<i2")
    assert samples.tolist() == [1] * 100 + [2] * 100
    assert engine.requests[0].voice.name == "voice_01.wav" and engine.requests[0].chunks == chunks


def test_a_wav_file_to_standard_output(engine: type[SilentEngine], capfdbinary: Any) -> None:
    assert cli.main(["synth", "--text", "Hello.", "-o", "-", "--voice", "voice_02"]) == 0
    samples, rate_hz = soundfile.read(io.BytesIO(capfdbinary.readouterr().out), dtype="int16")
    assert (rate_hz, samples.tolist()) == (22050, [1] * 2205)
    assert engine.requests[0].chunks is None
    assert engine.requests[0].voice.data == (EXAMPLES_DIR / "voice_02.flac").read_bytes()


def test_a_reader_that_goes_away_is_one_line(tiny_model_dir: Path) -> None:
    words = ["synth", "--text", "ABABA. " * 40, "--max-text-tokens", "4", "--max-mel-tokens", "8", "--num-beams", "1"]
    more = ["--model-dir", str(tiny_model_dir), "--device", "cpu", "--seed", "1", "-o", "-", "--format", "pcm"]
    program = [sys.executable, "-c", "import sys; from indextts.cli import main; sys.exit(main())"]
    run = subprocess.Popen([*program, *words, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout and run.stderr
    run.stdout.read(2)
    run.stdout.close()
    said = run.stderr.read().decode().splitlines()
    run.stderr.close()
    assert run.wait() == 4
    assert said[-1] == "ERROR: whoever read the standard output went away before the end"


def test_every_sampling_option_has_a_flag() -> None:
    assert set(SAMPLING_HELP) == {field for field in SamplingParams.__dataclass_fields__}


def test_text_from_a_file_and_from_standard_input(
    engine: type[SilentEngine], voice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text(" Größe. \n", encoding="utf-8")
    assert synth(voice, tmp_path / "a.wav", "--text-file", str(tmp_path / "text.txt")) == 0
    assert engine.requests[0].text == "Größe."
    monkeypatch.setattr(sys, "stdin", io.StringIO("Piped."))
    assert synth(voice, tmp_path / "b.wav", "--stdin") == 0
    assert engine.requests[0].text == "Piped."


def test_emotions(engine: type[SilentEngine], voice: str, tmp_path: Path) -> None:
    def emotion(*more: str) -> Any:
        assert synth(voice, tmp_path / "out.wav", "--force", *more) == 0
        return engine.requests[0].emotion

    assert emotion("--emotion-text", "gloomy", "--emotion-weight", "0.5") == FromText("gloomy", 0.5)
    assert emotion("--emotion-vector", "0.3,0,0,0,0,0,0.5,0") == FromVector((0.3, 0, 0, 0, 0, 0, 0.5, 0), 1.0)
    assert emotion("--emotion-vector", "[0,0,0.8,0,0,0,0,0]") == FromVector((0, 0, 0.8, 0, 0, 0, 0, 0), 1.0)
    assert isinstance(emotion("--emotion-audio", voice), FromAudio)


def test_what_was_read_out_of_a_text_is_said(
    engine: type[SilentEngine], voice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert synth(voice, tmp_path / "out.wav", "--emotion-text", "gloomy") == 0
    assert "emotion sad 0.75 + melancholic 0.25 as the bundled model read it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--text-file", "nowhere.txt"], 1, "nowhere.txt"),
        (["--emotion-audio", "nowhere.wav"], 1, "nowhere.wav"),
        (["--emotion-vector", "1,2"], 1, "8 numbers"),
        (["--emotion-vector", "a,0,0,0,0,0,0,0"], 1, "8 comma-separated"),
        (["--emotion-vector", "NaN,0,0,0,0,0,0,0"], 1, "0 to 1"),
        (["--emotion-vector", "1.5,0,0,0,0,0,0,0"], 1, "0 to 1"),
        (["--emotion-vector", "0.5,0.5,0,0,0,0,0,0"], 1, "at most 0.8"),
        (["--emotion-text", "x", "--emotion-weight", "nan"], 1, "finite"),
        (["--top-p", "3"], 1, "top_p"),
        (["--voice", "nowhere.wav"], 1, "nowhere.wav"),
        (["-o", "out.aac"], 1, ".wav"),
        (["-o", "out"], 1, ".wav"),
        (["-o", "out.mp3", "--format", "mp3"], 1, "-o -"),
        (["--interval-silence", "999999999"], 1, "60,000"),
        (["--duration-factor", "2.5"], 1, "from 0.5 to 2.0, not 2.5"),
        (["--duration", "0"], 1, "above 0"),
        (["--duration", "nan"], 1, "above 0"),
    ],
)
def test_wrong_input_is_refused_before_the_model_is_loaded(
    more: list[str], code: int, says: str, voice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "indextts.engine", None)
    output = tmp_path / "out.wav"
    assert synth(voice, output, *more) == code
    said = capsys.readouterr().err
    assert said.startswith("ERROR: ") and says in said and said.count("\n") == 1
    assert not output.exists()


def test_empty_text(voice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["synth", "--voice", voice, "-o", str(tmp_path / "out.wav"), "--text", "  "]) == 1
    assert "the text is empty" in capsys.readouterr().err


def test_an_existing_file_needs_force(engine: type[SilentEngine], voice: str, tmp_path: Path) -> None:
    output = tmp_path / "out.wav"
    output.write_bytes(b"precious")
    assert synth(voice, output) == 1
    assert output.read_bytes() == b"precious"
    assert synth(voice, output, "--force") == 0
    assert output.read_bytes()[:4] == b"RIFF"


@pytest.mark.parametrize(
    ("error", "code"),
    [(TextError("x"), 1), (CheckpointError("x"), 2), (UnsupportedOption("x"), 3), (SynthesisError("x"), 4)],
)
def test_exit_codes_of_a_failed_synthesis(
    error: IndexTTSError, code: int, engine: type[SilentEngine], voice: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(engine, "error", error)
    assert synth(voice, tmp_path / "out.wav") == code
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(
    "words", [["synth", "--voice", "v.wav", "-o", "o.wav"], ["sing"], [], ["synth", "--text", "a", "--stdin"]]
)
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
