"""``indextts batch``: lines in, files and results out, whatever stands in the lines."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indextts import cli
from indextts.cli.batch import KEYS, output_name, parse_line
from indextts.errors import ConfigError, IndexTTSError
from indextts.resources import EXAMPLES_DIR


@pytest.fixture
def batch(tiny_model_dir: Path, tmp_path: Path) -> Any:
    """Run the command on the tiny model with these lines; gives its exit code."""

    def run(lines: list[Any], *more: str) -> int:
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        (tmp_path / "lines.jsonl").write_text(text, encoding="utf-8")
        out = ["--out", str(tmp_path / "out"), "--model-dir", str(tiny_model_dir), "--device", "cpu"]
        quick = ["--max-mel-tokens", "8", "--num-beams", "1"]
        return cli.main(["batch", str(tmp_path / "lines.jsonl"), *out, *quick, *more])

    return run


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}


def test_lines_become_files(batch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.wav").write_bytes((EXAMPLES_DIR / "voice_02.flac").read_bytes())
    lines = [
        {"text": "ABABA.", "seed": 3},
        "",
        {"text": "ABABA. BABAB. ABABA.", "voice": "mine.wav", "output": "deep/er.flac", "sampling": {"top_k": 5}},
        {"text": "ABABA.", "voice": "voice_03", "emotion_vector": [0, 0.5, 0, 0, 0, 0, 0, 0], "emotion_weight": 0.5},
    ]
    assert batch(lines, "--batch-size", "2") == 0
    assert files(tmp_path) == {"00001.wav", "deep/er.flac", "00004.wav", "results.jsonl"}
    found = results(tmp_path)
    assert [(record["line"], record["output"]) for record in found] == [
        (1, "00001.wav"), (3, "deep/er.flac"), (4, "00004.wav"),
    ]  # fmt: skip
    assert found[0]["seed"] == 3 and found[1]["segments"] >= 1
    for record in found:
        info = soundfile.info(tmp_path / "out" / record["output"])
        assert info.duration == pytest.approx(record["duration_s"], abs=0.001)
    assert "3 spoken, 0 there already, 0 failed" in capsys.readouterr().out


def test_a_line_may_have_a_duration_of_its_own(batch: Any, tmp_path: Path) -> None:
    lines = [{"text": "ABABA."}, {"text": "ABABA.", "duration_s": 0.008}, {"text": "ABABA.", "duration_factor": 0.8}]
    lines += [{"text": "ABABA.", "duration_s": 0.0}, {"text": "ABABA.", "duration_s": 1, "duration_factor": 1.1}]
    assert batch(lines, "--duration-factor", "0.5", "--seed", "1") == cli.batch.EXIT_SOME_LINES
    half, asked, most, *wrong = results(tmp_path)
    assert asked["duration_s"] == pytest.approx(0.008, rel=0.1)  # 0.005 by itself
    assert half["duration_s"] / most["duration_s"] == pytest.approx(0.5 / 0.8, rel=0.2)
    assert ["above 0" in wrong[0]["error"], "not both" in wrong[1]["error"]] == [True, True]


def test_wrong_lines_do_not_stop_the_others(batch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "noise.wav").write_bytes(b"no sound")
    lines = [
        {"text": "ABABA."},
        "{not JSON",
        {"text": ""},
        {"txt": "a"},
        {"text": 5},
        [1],
        {"text": "a", "voice": "nowhere.wav"},
        {"text": "a", "output": "../out.wav"},
        {"text": "a", "sampling": {"top_p": 3}},
        {"text": "a", "sampling": {"x": 1}},
        {"text": "a", "emotion_vector": [1]},
        {"text": "a", "seed": -1},
        {"text": "half \ud800"},
        {"text": "a", "seed": True},
        {"text": "a", "output": "00001.WAV"},
        {"text": "?!"},
        {"text": "ABABA.", "voice": "noise.wav"},
        {"text": "BABAB."},
        {"text": "a", "emotion_text": "sad", "emotion_audio": "noise.wav"},
        {"text": "a", "emotion_mode": "audio"},
    ]
    assert batch(lines) == cli.batch.EXIT_SOME_LINES == 5
    said = capsys.readouterr()
    wrong = sorted(set(range(1, 21)) - {1, 18})
    reported = [line for line in said.err.splitlines() if line.startswith("ERROR: line ")]
    assert sorted(int(line.split()[2].rstrip(":")) for line in reported) == wrong
    assert f"could not be spoken: line {', '.join(map(str, wrong))}" in said.err.splitlines()[-1]
    assert "2 spoken, 0 there already, 18 failed" in said.out
    found = results(tmp_path)
    assert [record["line"] for record in found] == list(range(1, 21))
    assert [record["line"] for record in found if "error" in record] == wrong
    assert files(tmp_path) == {"00001.wav", "00018.wav", "results.jsonl"}
    assert not (tmp_path / "out.wav").exists()


def test_continue_speaks_what_is_missing_or_has_changed(batch: Any, tmp_path: Path) -> None:
    lines: list[Any] = [{"text": "ABABA.", "seed": 1}, {"text": "BABAB."}, {"text": "AAAAA.", "voice": "later.wav"}]
    assert batch(lines) == 5
    out = tmp_path / "out"
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.wav")}
    (out / "results.jsonl").write_text((out / "results.jsonl").read_text() + '{"line": 2, "half', encoding="utf-8")
    (tmp_path / "later.wav").write_bytes((EXAMPLES_DIR / "voice_02.flac").read_bytes())
    assert batch(lines, "--continue") == 0
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.wav")}
    assert set(after) == {"00001.wav", "00002.wav", "00003.wav"}
    assert {name: after[name] for name in before} == before
    (out / "00001.wav").unlink()
    assert batch([lines[0], {"text": "BABAB BABAB."}, lines[2]], "--continue") == 0
    last = {path.name: path.stat().st_mtime_ns for path in out.glob("*.wav")}
    assert last["00003.wav"] == after["00003.wav"]
    assert last["00001.wav"] > after["00001.wav"] and last["00002.wav"] > after["00002.wav"]
    assert [record["line"] for record in results(tmp_path)] == [1, 2, 3]


def test_lines_side_by_side_are_what_they_are_alone(batch: Any, tmp_path: Path) -> None:
    lines: list[Any] = [
        {"text": "ABABA. BABAB.", "seed": 1},
        {"text": "BABAB.", "seed": 2, "voice": "voice_02", "sampling": {"top_k": 5}},
        {"text": "AAAAA.", "voice": "later.wav"},
        {"text": "ABABA. BABAB. ABABA.", "seed": 3, "emotion_vector": [0, 0.5, 0, 0, 0, 0, 0, 0]},
        {"text": "AAB. BBA.", "seed": 4},
    ]
    assert batch(lines) == 5
    alone = {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path) - {"results.jsonl"}}
    assert len(alone) == 4
    assert batch(lines, "--force", "--parallel", "3") == 5
    assert {name: (tmp_path / "out" / name).read_bytes() for name in alone} == alone
    found = results(tmp_path)
    assert [record["line"] for record in found] == [1, 2, 3, 4, 5]
    assert ["error" in record for record in found] == [False, False, True, False, False]
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in alone}
    (tmp_path / "later.wav").write_bytes((EXAMPLES_DIR / "voice_02.flac").read_bytes())
    assert batch(lines, "--continue", "--parallel", "9") == 0
    assert files(tmp_path) == {*alone, "00003.wav", "results.jsonl"}
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in alone} == before


def test_the_model_is_with_so_many_lines_at_once(batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from indextts.engine import Engine

    speak, together = Engine.synthesize, threading.Barrier(3)

    def speaks_three_at_once(engine: Engine, *more: Any) -> Any:
        together.wait(20)  # passed only when three are here
        return speak(engine, *more)

    monkeypatch.setattr(Engine, "synthesize", speaks_three_at_once)
    assert batch([{"text": "ABABA."}] * 3, "--parallel", "3") == 0


def test_nothing_is_replaced_unasked(batch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "00001.wav").write_bytes(b"precious")
    assert batch([{"text": "ABABA."}]) == 5
    assert (tmp_path / "out" / "00001.wav").read_bytes() == b"precious"
    assert batch([{"text": "ABABA."}]) == 1
    assert "--continue goes on with it, --force" in capsys.readouterr().err
    assert batch([{"text": "ABABA."}], "--force") == 0
    assert (tmp_path / "out" / "00001.wav").read_bytes()[:4] == b"RIFF"


def test_a_failure_inside_the_model_stops_one_line(
    batch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from indextts.engine import Engine

    speak = Engine.synthesize

    def fails_on_b(engine: Engine, request: Any, *more: Any) -> Any:
        if request.text.startswith("B"):
            raise RuntimeError("out of memory")
        return speak(engine, request, *more)

    monkeypatch.setattr(Engine, "synthesize", fails_on_b)
    assert batch([{"text": "BABAB."}, {"text": "ABABA."}]) == 5
    assert "ERROR: line 1: RuntimeError: out of memory" in capsys.readouterr().err
    assert files(tmp_path) == {"00002.wav", "results.jsonl"}


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xff"])
def test_files_without_lines(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lines.jsonl").write_bytes(content)
    code = cli.main(["batch", str(tmp_path / "lines.jsonl"), "--out", str(tmp_path / "out")])
    assert code == (5 if content.strip() else 1)


def test_the_examples_are_lines() -> None:
    for raw in (EXAMPLES_DIR / "cases.jsonl").read_bytes().splitlines():
        assert parse_line(raw)["text"]


NAMES = st.one_of(
    st.lists(
        st.sampled_from(["..", ".", "/", "\\", "a", "C:", "~", "\0", "\n", "link", "con", "%2e%2e", "\u202e", ".wav"]),
        max_size=6,
    ).map(lambda parts: "".join(parts) + ".wav"),
    st.text(st.characters(exclude_categories=()), max_size=30).map(lambda name: f"{name}.flac"),
)


@settings(max_examples=500, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(name=NAMES)
def test_no_name_leads_out_of_the_folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp() / "names"
    folder = base / "out"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "link").exists():
        (folder / "link").symlink_to(base, target_is_directory=True)
    try:
        path = folder / output_name(name, folder)
    except ConfigError:
        return
    assert path.resolve().is_relative_to(folder.resolve()) and path.name.isprintable() and "\\" not in name


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(exclude_categories=()), max_size=9)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=300, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    raw=st.one_of(
        st.binary(max_size=40),
        st.dictionaries(st.one_of(st.sampled_from(list(KEYS)), st.text(max_size=5)), VALUES, max_size=4)
        .map(lambda given: json.dumps({"text": "a", **given}).encode()),
        st.sampled_from([b"[" * 99_999, b'{"seed": ' + b"9" * 9999 + b"}", b'{"a": NaN}', b"\xff", b"null"]),
    )
)  # fmt: skip
def test_any_line_is_understood_or_refused(raw: bytes) -> None:
    try:
        given = parse_line(raw)
    except IndexTTSError as error:
        assert len(str(error)) < 700
    else:
        assert isinstance(given["text"], str) and set(given) <= set(KEYS)
