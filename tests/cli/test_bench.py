"""``indextts bench``: its flags, what it refuses, and one run from the command line to the files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from indextts import cli
from indextts.cli.bench import SIZES, SWITCHES, parse_config

QUICK = [
    "--random-weights", "tiny", "--device", "cpu", "--characters", "4", "--long-characters", "0", "--beams", "1",
    "--repetitions", "1", "--warm-ups", "0",
]  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that ends the program with exit code 2."""
    try:
        code = cli.main(["bench", *words])
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr()
    assert code == 2 and said.out == ""
    assert said.err.startswith("ERROR: ") and said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--configs", "fp32,turbo"], "'turbo'"),
        (["--configs", "fp16+bf16"], "fp16 and bf16"),
        (["--configs", "fp32+fp16"], "two precisions"),
        (["--configs", "fp16+fp16"], "twice"),
        (["--configs", "fp32,fp32"], "twice"),
        (["--configs", ""], "''"),
        (["--configs", "batch0"], "'batch0'"),
        (["--configs", "strict"], "'strict'"),
        (["--beams", "0"], "from 1 up"),
        (["--beams", "11"], "num_beams"),
        (["--beams", "3,3"], "twice"),
        (["--characters", "1"], "at least 2"),
        (["--long-characters", "-5"], "-5"),
        (["--repetitions", "0"], "from 1 up"),
        (["--warm-ups", "x"], "'x'"),
        (["--random-weights", "huge"], "huge"),
        (["--random-weights", "tiny", "--model-dir", "checkpoints"], "not allowed"),
        (["--codes-per-character", "11"], "--random-weights"),
        (["--ds-config", "nowhere.json"], "nowhere.json"),
        (["--voice", "nowhere.wav"], "nowhere.wav"),
        (["--json", "nowhere/x.json"], "nowhere/x.json"),
        (["--device", "toaster"], "toaster"),
        (["--fp16"], "--fp16"),
        (["--quality", "0"], "from 1 up"),
        (["--quality", "3", "--random-weights", "tiny"], "--random-weights are noise"),
        (["--quality", "201"], "only 200 sentences"),
        (["--quality", "1", "--sentences", "nowhere.txt"], "nowhere.txt"),
        (["--quality", "1", "--no-speed", "--plot", "x.png"], "--no-speed"),
        (["--sentences", __file__], "--sentences is for --quality"),
        (["--clips", "."], "--clips is for --quality"),
        (["--quality", "1", "--clips", __file__], "is no folder"),
        (["--no-speed"], "--no-speed"),
        (["--voice", __file__, __file__], "2 recordings"),
        (["--quality", "1", "--voice", __file__, __file__], "'test_bench'"),
    ],
)
def test_wrong_flags(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in refused(capsys, *words)


def test_wrong_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], recordings: tuple[Path, Path]) -> None:
    noise = tmp_path / "voice.wav"
    noise.write_bytes(b"not a recording")
    assert "voice.wav" in refused(capsys, *QUICK, "--voice", str(noise))
    settings = tmp_path / "ds.json"
    settings.write_text('{"warp": 9}')
    words = [*QUICK, "--voice", str(recordings[0]), "--ds-config", str(settings)]
    assert "--configs has none" in refused(capsys, *words)
    assert "'warp'" in refused(capsys, *words, "--configs", "fp32,deepspeed")


def test_a_pace_beyond_the_model(capsys: pytest.CaptureFixture[str], recordings: tuple[Path, Path]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", *QUICK, "--voice", str(recordings[0]), "--codes-per-character", "150"])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and said.out == ""
    assert said.err.splitlines()[-1].startswith("ERROR: 150 codes a character are too many")
    assert "Traceback" not in said.err


def test_a_picture_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recordings: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = [*QUICK, "--voice", str(recordings[0]), "--plot", str(tmp_path / "x.png")]
    assert "pip install matplotlib" in refused(capsys, *words)


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], recordings: tuple[Path, Path]) -> None:
    file = tmp_path / "figures.json"
    words = [*QUICK, "--voice", str(recordings[0]), "--json", str(file), "--configs", "fp32,cuda-graph+batch2"]
    assert cli.main(["bench", *words, "--codes-per-character", "3"]) == 0
    text = capsys.readouterr().out
    assert "size tiny, 3 codes a character" in text and "cuda-graph+batch2 *" in text
    assert "NOT HONOURED, cuda-graph: off (needs a CUDA device)" in text
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [config["name"] for config in found["configs"]] == ["fp32", "cuda-graph+batch2"]
    assert [config["beams"][0]["codes"] for config in found["configs"]] == [12, 12]
    assert found["plan"]["codes_per_character"] == 3


def test_a_run_for_judges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recordings: tuple[Path, Path], tiny_model_dir: Path
) -> None:
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("Hello there.\n\nHow are you?\nNot this one.\n", encoding="utf-8")
    words = ["--model-dir", str(tiny_model_dir), "--device", "cpu", "--voice", *map(str, recordings), "--no-speed"]
    folder = tmp_path / "made" / "clips"
    code = cli.main(["bench", *words, "--quality", "2", "--sentences", str(sentences), "--clips", str(folder)])
    assert code == 0 and "quality, 2 sentences in 2 voices" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["bench.json", "fp32", "prompts"]
    found = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    assert found["plan"]["quality"]["sentences"] == ["Hello there.", "How are you?"]
    assert found["plan"]["quality"]["folder"] == str(folder) and found["plan"]["beams"] == []
    assert found["configs"][0]["quality"]["other_noise"]["mel"] > 0


def test_a_failed_configuration_is_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recordings: tuple[Path, Path]
) -> None:
    words = [*QUICK, "--voice", str(recordings[0]), "--configs", "cuda-kernel,fp32", "--strict"]
    assert cli.main(["bench", *words]) == 4
    said = capsys.readouterr()
    assert "cuda-kernel: FAILED, UnsupportedOption" in said.out and "4 characters" in said.out
    assert said.err.splitlines()[-1].startswith("ERROR: not measured: cuda-kernel")


def test_configurations_become_engine_options() -> None:
    assert parse_config("fp32") == {}
    assert parse_config("deepspeed+fp16+batch4") == {"deepspeed": True, "fp16": True, "batch_size": 4}
    assert parse_config("fp32+cuda-graph+tp2") == {"cuda_graph": True, "ds_tp_size": 2}
    assert {"fp16", "bf16", "deepspeed", "cuda-kernel", "cuda-graph", "cpu-offload"} <= set(SWITCHES)
    assert not {"strict", "qwen-emotion"} & set(SWITCHES)


def test_sizes_are_those_that_can_be_built() -> None:
    from indextts import random_weights

    assert tuple(random_weights.SIZES) == SIZES


def test_help_is_light(capsys: pytest.CaptureFixture[str]) -> None:
    before = set(sys.modules)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "--help"])
    assert stopped.value.code == 0 and "--random-weights" in capsys.readouterr().out
    assert not {"indextts.bench.measure", "matplotlib"} & (set(sys.modules) - before)
