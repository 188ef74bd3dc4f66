"""``--server``: the commands on a running server. The same command says the same with it and without."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from indextts import cli
from indextts.api import ApiSettings
from indextts.resources import EXAMPLES_DIR
from indextts.types import FromAudio, FromText, FromVector, FromVoice, SynthesisRequest, VoicePrompt
from tests.api.conftest import Running, serving, until
from tests.webui.humming_engine import HummingEngine, hum

if TYPE_CHECKING:
    from indextts.engine import Engine

SPOKEN = np.concatenate([hum(0.5), hum(0.5)])


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(HummingEngine(), tmp_path_factory.mktemp("voices")) as running:
        yield running


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """With a server, none is loaded here."""
    if "tiny_engine" not in request.fixturenames:
        monkeypatch.setitem(sys.modules, "indextts.engine", None)


def synth(api: Running, output: Path | str, *more: str, text: str = "One. Two.") -> int:
    words = ["synth", "--server", api.server.address, "--voice", "hum", "--text", text, "-o", str(output)]
    return cli.main([*words, *more])


def test_synth(api: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--seed", "5", "--top-k", "7", "--max-text-tokens", "60", "--interval-silence", "90", "--no-repair"]
    assert synth(api, tmp_path / "out.flac", *settings) == 0
    samples, _ = soundfile.read(tmp_path / "out.flac", dtype="int16")
    assert np.array_equal(samples, SPOKEN)
    assert "(1.0 s, seed 5, real-time factor 0.10)" in capsys.readouterr().out
    request = api.engine.requests[-1]
    assert (request.text, request.seed, request.emotion) == ("One. Two.", 5, FromVoice())
    assert (request.max_text_tokens_per_segment, request.interval_silence_ms) == (60, 90)
    assert not request.repair
    assert request.sampling.top_k == 7 and request.sampling.temperature == HummingEngine.sampling_defaults.temperature
    assert request.voice.data == api.library.get("hum").path.read_bytes()


def test_a_recording_of_this_machine(api: Running, tmp_path: Path) -> None:
    mine = EXAMPLES_DIR / "voice_02.flac"
    assert synth(api, tmp_path / "a.wav", "--voice", str(mine), "--emotion-audio", str(mine)) == 0
    request = api.engine.requests[-1]
    assert request.voice.data == mine.read_bytes()
    assert isinstance(request.emotion, FromAudio) and request.emotion.prompt.data == mine.read_bytes()


def test_emotions_are_those_of_a_model_that_is_loaded_here(api: Running, tmp_path: Path) -> None:
    def emotion(*more: str) -> Any:
        assert synth(api, tmp_path / "a.wav", "--force", *more) == 0
        return api.engine.requests[-1].emotion

    assert emotion("--emotion-vector", "0.3,0,0,0,0,0,0.5,0") == FromVector((0.3, 0, 0, 0, 0, 0, 0.5, 0), 1.0)
    assert emotion("--emotion-text", "gloomy", "--emotion-weight", "0.5") == FromText("gloomy", 0.5)
    assert emotion("--emotion-text", "") == FromText(None, 1.0)
    by_name = emotion("--emotion-audio", "hum")
    assert by_name.prompt.data == api.library.get("hum").path.read_bytes()


@pytest.mark.parametrize("format", ["pcm", "wav"])
def test_standard_output(api: Running, capfdbinary: Any, format: str) -> None:
    assert synth(api, "-", "--format", format) == 0
    content = capfdbinary.readouterr().out
    if format == "pcm":
        samples = np.frombuffer(content, "<i2")
    else:
        samples, _ = soundfile.read(io.BytesIO(content), dtype="int16")
    assert np.array_equal(samples, SPOKEN)


@pytest.mark.parametrize(
    ("more", "text", "code", "says"),
    [
        (["--fp16"], "One.", 2, "--fp16: for a model that is loaded here, not with --server"),
        (["--batch_size", "1", "--model-dir=checkpoints"], "One.", 2, "--model-dir, --batch-size: for a model"),
        (["--server", "localhost:8000"], "One.", 2, "must be a URL as in http://127.0.0.1:8000"),
        (["--server", "http://127.0.0.1:9"], "One.", 2, "no answer from a server at http://127.0.0.1:9"),
        (["--voice", "nobody"], "One.", 1, "there is no voice 'nobody'"),
        (["--voice", "./nowhere.wav"], "One.", 1, "nowhere.wav"),
        (["--top-p", "3"], "One.", 1, "top_p"),
        (["--emotion-text", "sad", "--emotion-weight", "2"], "One.", 1, "emotion.weight"),
        ([], "...", 1, "nothing to speak"),
        ([], "This will fail.", 4, "no speech for segment 1"),
    ],
)
def test_mistakes(
    api: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], text: str, code: int, says: str
) -> None:
    try:
        ended = synth(api, tmp_path / "out.wav", *more, text=text)
    except SystemExit as stopped:
        ended = stopped.code
    said = capsys.readouterr().err
    assert ended == code and says in said and said.count("\n") == 1
    assert not (tmp_path / "out.wav").exists()


def test_the_key_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(HummingEngine(), tmp_path / "voices", ApiSettings(api_key="sesame")) as api:
        assert synth(api, tmp_path / "a.wav") == 2
        monkeypatch.setenv("INDEXTTS_API_KEY", "sesame")
        assert synth(api, tmp_path / "a.wav") == 0


def test_no_torch_is_loaded(api: Running, tmp_path: Path) -> None:
    words = ["synth", "--server", api.server.address, "--voice", "hum", "--text", "One.", "-o", f"{tmp_path}/a.opus"]
    program = f"import sys; from indextts import cli; print(cli.main({words!r}), 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "0 False"


def batch(api: Running, folder: Path, lines: list[Any], *more: str) -> int:
    (folder / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    words = ["batch", str(folder / "lines.jsonl"), "--out", str(folder / "out"), "--server", api.server.address]
    return cli.main([*words, "--voice", "hum", *more])


def test_batch(api: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.wav").write_bytes((EXAMPLES_DIR / "voice_02.flac").read_bytes())
    lines = [
        {"text": "One. Two.", "seed": 3},
        {"text": "One.", "voice": "mine.wav", "output": "deep/er.mp3"},
        {"text": "One.", "voice": "nobody"},
        {"text": "One.", "voice": "other/nobody.wav"},
        {"text": "This will fail."},
    ]
    assert batch(api, tmp_path, lines) == 5
    said = capsys.readouterr()
    assert "2 spoken, 0 there already, 3 failed" in said.out
    assert "line 3: the server says: there is no voice 'nobody'" in said.err
    records = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert ["error" in record for record in records] == [False, False, True, True, True]
    assert (records[0]["seed"], records[0]["segments"], records[0]["duration_s"]) == (3, 2, 1.0)
    assert soundfile.info(tmp_path / "out" / "deep" / "er.mp3").duration == pytest.approx(0.5, abs=0.1)
    served = len(api.engine.requests)
    assert batch(api, tmp_path, lines[:2], "--continue") == 0
    assert "0 spoken, 2 there already" in capsys.readouterr().out and len(api.engine.requests) == served


def test_batch_asks_for_several_lines_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    together = threading.Barrier(3)

    class Together(HummingEngine):
        def synthesize(self, *request_and_more: Any) -> Any:
            together.wait(20)  # passed only when three are here
            return super().synthesize(*request_and_more)

    lines = [{"text": text, "seed": seed} for seed, text in enumerate(["One.", "One. Two.", "One. It will fail."] * 2)]
    with serving(Together(), tmp_path / "voices") as api:  # whose four places but one are for this client
        assert batch(api, tmp_path, lines, "--parallel", "3") == 5
    assert "4 spoken, 0 there already, 2 failed" in capsys.readouterr().out
    records = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [record.get("duration_s") for record in records] == [0.5, 1.0, None] * 2
    assert [record.get("seed") for record in records] == [0, 1, None, 3, 4, None]


def test_batch_waits_for_a_busy_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    slow = SynthesisRequest("slow.", VoicePrompt(b""))
    with serving(HummingEngine(), tmp_path / "voices", simultaneous=1, max_queue=1) as api:
        others = [
            api.service.submit(lambda engine, *tell_and_stop: engine.stream(slow, *tell_and_stop), name, lambda _: None)
            for name in "ab"
        ]
        until(lambda: api.service.stats().waiting == 1)

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            for job in others:
                job.cancel()
            until(lambda: api.service.stats().running == 0)

        monkeypatch.setattr("indextts.client.sleep", sleep)
        assert batch(api, tmp_path, [{"text": "One."}]) == 0
    assert len(waited) == 1 and waited[0] >= 1
    assert "then try 2 of 10" in capsys.readouterr().err


def test_a_stream_of_a_wanted_duration(api: Running, tmp_path: Path, capfdbinary: Any) -> None:
    assert synth(api, tmp_path / "unused", "-o", "-", "--format", "pcm", "--duration-factor", "1.5") == 0
    assert np.array_equal(np.frombuffer(capfdbinary.readouterr().out, "<i2"), SPOKEN)
    request = api.engine.requests[-1]
    assert (request.duration_factor, request.chunks) == (1.5, None)


@pytest.mark.parametrize("format", ["wav", "pcm"])
def test_the_same_command_says_the_same_here_and_there(
    tiny_engine: Engine, tiny_model_dir: Path, recordings: tuple[Path, Path], tmp_path: Path, capfdbinary: Any,
    format: str,
) -> None:  # fmt: skip
    words = ["synth", "--text", "ABABA. BABAB. ABABA.", "--voice", str(recordings[0]), "-o", "-", "--format", format]
    words += ["--emotion-vector", "0,0.5,0,0,0.2,0,0,0", "--emotion-weight", "0.7", "--seed", "7"]
    words += ["--temperature", "0.9", "--max-mel-tokens", "8", "--num-beams", "1", "--max-text-tokens", "4"]
    words += ["--interval-silence", "50", "--no-repair"]
    assert cli.main([*words, "--model-dir", str(tiny_model_dir), "--device", "cpu"]) == 0
    here = capfdbinary.readouterr().out
    with serving(tiny_engine, tmp_path / "voices") as api:
        assert cli.main([*words, "--server", api.server.address]) == 0
    there = capfdbinary.readouterr().out
    assert len(here) == len(there) > 4000
    # Another thread may add up in another order, which can move a sample by one step.
    difference = np.frombuffer(here, "<i2").astype(int) - np.frombuffer(there, "<i2")
    assert np.abs(difference).max() <= 1
