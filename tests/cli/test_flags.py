"""The flags of the guide: what they give, both spellings, one clear line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from indextts.cli.flags import (
    EXIT_USAGE,
    Parser,
    add_engine_flags,
    add_page_flags,
    add_server_flags,
    add_service_flags,
    engine_config,
)
from indextts.config import EngineConfig


def parse(*words: str) -> tuple[EngineConfig, dict]:
    parser = Parser("webui.py")
    add_engine_flags(parser)
    add_server_flags(parser, port=7860)
    add_page_flags(parser)
    add_service_flags(parser)
    args = parser.parse_args(words)
    return engine_config(args, parser), vars(args)


def test_nothing_given_is_the_default_configuration() -> None:
    config, args = parse()
    assert config == EngineConfig()
    assert (args["host"], args["port"], args["idle_unload"]) == ("127.0.0.1", 7860, None)


@pytest.mark.parametrize("underscores", [False, True])
def test_every_flag_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, underscores: bool) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    settings = tmp_path / "my_ds-config.json"
    settings.write_text("{}")
    words = [
        "--deepspeed", "--fp16", "--cuda-kernel", "--ds-config", str(settings), "--batch-size", "4",
        "--ds-tp-size=5", "--inference-timeout", "60", "--cuda-graph", "--cpu-offload", "--strict",
        "--host", "0.0.0.0", "--port", "8000", f"--model-dir={tmp_path}", "--device", "cuda",
    ]  # fmt: skip
    if underscores:
        words = ["--" + w[2:].replace("-", "_") if w.startswith("--") and "=" not in w else w for w in words]
        words = [w.replace("--model-dir=", "--model_dir=").replace("--ds-tp-size=", "--ds_tp_size=") for w in words]
    config, args = parse(*words)
    assert config == EngineConfig(
        model_dir=tmp_path, device="cuda", fp16=True, deepspeed=True, ds_config=settings, ds_tp_size=5,
        cuda_kernel=True, cuda_graph=True, cpu_offload=True, batch_size=4, inference_timeout_s=60.0, strict=True,
    )  # fmt: skip
    assert (args["host"], args["port"]) == ("0.0.0.0", 8000)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--batch-size", "0"], "'0'"),
        (["--batch-size", "two"], "'two'"),
        (["--ds-tp-size", "-1"], "ds-tp-size"),
        (["--inference-timeout", "29"], "30 to 300"),
        (["--inference-timeout", "301"], "30 to 300"),
        (["--inference-timeout", "nan"], "30 to 300"),
        (["--port", "65536"], "65535"),
        (["--auth", "ann"], "user:password"),
        (["--auth", ":two"], "user:password"),
        (["--auth", "ann:"], "user:password"),
        (["--auth", ""], "user:password"),
        (["--root-path", "tts"], "'tts'"),
        (["--root-path", "ftp://x"], "'ftp://x'"),
        (["--root-path", "//x"], "'//x'"),
        (["--max-upload", "0"], "'0'"),
        (["--max-upload", "1.5"], "'1.5'"),
        (["--ds-config", "nowhere.json"], "nowhere.json"),
        (["--model-dir", "nowhere"], "nowhere"),
        (["--device", "gpu"], "'gpu'"),
        (["--fp16", "--bf16"], "exclude each other"),
        (["--ds-config", __file__], "--deepspeed"),
        (["--deepspeed", "--ds-config", __file__], "line 1"),
        (["--ds-tp-size", "7"], "5 attention heads: use 1, 5"),
        (["--ds-tp-size", "5", "--device", "cuda:1"], "--device cuda:1 contradicts --ds-tp-size 5"),
        (["--deep"], "--deep"),
        (["--quick"], "--quick"),
    ],
)
def test_mistakes_are_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(*words)
    assert stopped.value.code == EXIT_USAGE
    said = capsys.readouterr().err
    assert said.startswith("ERROR: ") and said.count("\n") == 1 and says in said


def test_a_deepspeed_configuration_against_a_flag_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "mine.json"
    settings.write_text('{"fp16": {"enabled": false}}')
    with pytest.raises(SystemExit) as stopped:
        parse("--deepspeed", "--fp16", "--ds-config", str(settings))
    assert stopped.value.code == EXIT_USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"--fp16 contradicts {settings}, where fp16.enabled is false" in said


@pytest.mark.parametrize(
    ("words", "expected"), [([], None), (["--cuda-graph"], True), (["--cuda-graph", "false"], False)]
)
def test_the_graphs_switch_has_three_states(words: list[str], expected: bool | None) -> None:
    parser = Parser("program")
    add_engine_flags(parser)
    assert engine_config(parser.parse_args(words), parser).cuda_graph is expected


def test_users_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "users"
    path.write_text("ann:one:1\n\nbob:two\n")
    assert parse("--auth", str(path))[1]["auth"] == (("ann", "one:1"), ("bob", "two"))
    assert parse("--auth", "ann:one:1")[1]["auth"] == (("ann", "one:1"),)
    for content, says in (("ann:one\nbob", "line 2"), ("ann:1\nann:2", "'ann' twice"), ("\n", "no user:password")):
        path.write_text(content)
        with pytest.raises(SystemExit) as stopped:
            parse("--auth", str(path))
        said = capsys.readouterr().err
        assert stopped.value.code == EXIT_USAGE and says in said and said.count("\n") == 1
    path.write_bytes(b"\xff\xff:x")
    with pytest.raises(SystemExit):
        parse("--auth", str(path))
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "path"),
    [("/tts", "/tts"), ("/a/b/", "/a/b"), ("https://example.org/tts/", "https://example.org/tts"), ("/", "")],
)
def test_root_paths(text: str, path: str) -> None:
    assert parse("--root-path", text)[1]["root_path"] == path
