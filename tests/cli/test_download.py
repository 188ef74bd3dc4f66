"""``indextts download`` and ``manifest``: the official layout from a hub on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from indextts import cli
from indextts.checkpoints import AUXILIARY, locate
from indextts.cli.download import SOURCES
from indextts.hub import HUBS, WANTED
from indextts.manifest import MANIFEST, compare, read_manifest
from tests.hub_server import FakeHub, serve

PLACES = (
    "config.yaml", "bpe.model", "gpt.pth", "s2mel.pth", "wav2vec2bert_stats.pt", "feat1.pt", "feat2.pt",
    "qwen0.6bemo4-merge/model.safetensors", "qwen0.6bemo4-merge/config.json",
    "hf_cache/w2v-bert-2.0/config.json", "hf_cache/w2v-bert-2.0/preprocessor_config.json",
    "hf_cache/w2v-bert-2.0/model.safetensors", "hf_cache/semantic_codec_model.safetensors",
    "hf_cache/campplus_cn_common.bin", "hf_cache/bigvgan/config.json", "hf_cache/bigvgan/bigvgan_generator.pt",
)  # fmt: skip


def official(source: str) -> dict[str, dict[str, bytes]]:
    """Every wanted file, with its name as content, and files that nobody wants."""
    repositories: dict[str, dict[str, bytes]] = {}
    for item in WANTED:
        repository = item.modelscope or item.repository if source == "modelscope" else item.repository
        in_folder = ("model.safetensors", "config.json") if "*" in item.pattern else ("",)
        names = [item.pattern.replace("*", name) for name in in_folder]
        for name in names:
            content = b"version: 2.0\n" if name == "config.yaml" else f"{repository}/{name}".encode() * 9
            repositories.setdefault(repository, {"README.md": b"x", "pytorch_model.bin": b"y"})[name] = content
    return repositories


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


@pytest.fixture(params=SOURCES)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[FakeHub, str]]:
    with serve(FakeHub(official(request.param))) as hub:
        yield hub, request.param


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_sources_are_hubs() -> None:
    assert set(SOURCES) == set(HUBS)


def test_download(server: tuple[FakeHub, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub, source = server
    command = ["download", "--model-dir", str(tmp_path / "m"), "--source", source, "--endpoint", hub.endpoint]
    assert cli.main([*command, "--dry-run"]) == 0
    assert not (tmp_path / "m").exists() and "would be fetched" in capsys.readouterr().out
    assert cli.main(command) == 0
    assert f"all {len(PLACES)} files" in capsys.readouterr().out
    assert files(tmp_path / "m") == {*PLACES, MANIFEST}
    _, found = locate(tmp_path / "m")
    assert found.gpt == tmp_path / "m" / "gpt.pth" and not found.bundled and found.qwen_emotion.is_dir()
    assert {file.state for file in compare(tmp_path / "m", found.paths())} == {"ok"}
    before = len(hub.requests)
    assert cli.main(command) == 0
    assert len(hub.requests) == before and "already there" in capsys.readouterr().out


def test_a_broken_download_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(FakeHub(official("huggingface"), faults={"gpt.pth": ["cut", 404]})) as hub:
        command = ["download", "--model-dir", str(tmp_path), "--endpoint", hub.endpoint]
        assert cli.main(command) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("ERROR: ") and "answers 404" in said
        assert "gpt.pth" not in files(tmp_path) and MANIFEST not in files(tmp_path)
        assert cli.main(["synth", "--model-dir", str(tmp_path), "--voice", __file__, "--text", "a", "-o", "o.wav"]) == 2
        assert "missing model files" in capsys.readouterr().err
        assert cli.main(command) == 0
        assert hub.asked("gpt.pth")[-1] is not None  # it went on


def test_own_files_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gpt.pth").write_bytes(b"my own")
    with serve(FakeHub(official("huggingface"))) as hub:
        command = ["download", "--model-dir", str(tmp_path), "--endpoint", hub.endpoint]
        assert cli.main(command) == 1
        assert "gpt.pth" in capsys.readouterr().err and files(tmp_path) == {"gpt.pth"}
        assert cli.main([*command, "--force"]) == 0
    assert (tmp_path / "gpt.pth").read_bytes() != b"my own"


def test_list_asks_nobody(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("httpx.Client", None)
    assert cli.main(["download", "--list", "--model-dir", "models"]) == 0
    said = capsys.readouterr().out
    for item in WANTED:
        assert item.repository in said and item.pattern in said
    assert "-> models/hf_cache/semantic_codec_model.safetensors\n" in said and "-> models/hf_cache/bigvgan/\n" in said


def test_what_is_looked_for_is_downloaded() -> None:
    for repository, remote, names in AUXILIARY.values():
        assert f"hf_cache/{names[0]}" in PLACES
        assert any((item.repository, item.pattern) == (repository, remote) for item in WANTED)


def test_the_endpoint_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(FakeHub(official("huggingface"))) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert cli.main(["download", "--model-dir", str(tmp_path), "--dry-run"]) == 0
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    assert cli.main(["download", "--model-dir", str(tmp_path), "--dry-run"]) == 1


@pytest.mark.parametrize("address", ["huggingface.co", "ftp://there", "http://", "http://a:b", "file:///etc"])
def test_wrong_addresses(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["download", "--endpoint", address])
    assert stopped.value.code == 2 and "must be an address like" in capsys.readouterr().err


def test_manifest(tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    assert cli.main(["manifest", "--model-dir", str(folder)]) == 0
    assert f"{folder / MANIFEST} is written" in capsys.readouterr().out
    assert {"gpt.pth", "hf_cache/w2v-bert-2.0/model.safetensors"} <= read_manifest(folder).keys()
    assert json.loads((folder / MANIFEST).read_text())["source"] == "the files as they were"
