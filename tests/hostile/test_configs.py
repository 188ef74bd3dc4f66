"""Configuration files with anything in them: the model's YAML and DeepSpeed's JSON."""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import strategies as st

from indextts.accel.ds_config import DeepSpeedConfig, load_ds_config
from indextts.checkpoints import locate
from indextts.config import EngineConfig, ModelConfig
from indextts.config_file import load_model_config
from indextts.errors import CheckpointError, ConfigError, IndexTTSError
from indextts.loading import load_models
from indextts.resources import DS_CONFIG, NANO_DIR
from tests.hostile.sizes import Try, quick_and_slow

logger = logging.getLogger(__name__)

MAX_SECONDS = 20
OFFICIAL = Path(__file__).parents[1] / "data" / "official_config.yaml"
TRAINING = {
    "train_batch_size": 8, "zero_optimization": {"stage": 2}, "fp16": {"enabled": True, "loss_scale": 0},
    "tensor_parallel": {"enabled": True, "tp_size": 5}, "dtype": "fp16", "quant": {"enabled": False},
    "inference": {"enable_cuda_graph": True, "max_out_tokens": 2500},
}  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10), st.sampled_from([2**31, -(2**63), 10**400, 1e308, 1e-300, 10**6]),
    st.floats(), st.text(max_size=9), st.sampled_from(["../../x", "None", "\0", "x" * 9999, "1e5", "fp16"]),
    st.lists(st.integers(-1, 3), max_size=5), st.dictionaries(st.text(max_size=4), st.integers(), max_size=3),
    st.builds(lambda: [[[1]] for _ in range(99)]),
)  # fmt: skip


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a tree of dicts and lists."""
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [place for key in keys for place in ((tree, key), *places(tree[key]))]


@st.composite
def changed(draw: st.DrawFn, original: Any) -> Any:
    """A copy of ``original`` with values replaced, keys taken out or renamed, and new ones put in."""
    tree = json.loads(json.dumps(original))
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(places(tree)))
        change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if change == "replace":
            container[key] = draw(ODD)
        elif change == "remove":
            del container[key]
        elif isinstance(container, dict):
            container[draw(st.text(max_size=9))] = draw(ODD)
        if not places(tree):
            break
    return tree


@st.composite
def damaged(draw: st.DrawFn, original: str) -> bytes:
    """``original`` with characters replaced by those that mean something in YAML and JSON, and by any bytes."""
    content = bytearray(original.encode())
    for _ in range(draw(st.integers(1, 5))):
        position = draw(st.integers(0, len(content)))
        new = draw(
            st.one_of(
                st.sampled_from([*b"{}[]:,&*!|>%@`\"'#-?\n\t\\/0"]).map(lambda c: bytes([c])), st.binary(max_size=4)
            )
        )
        content[position : position + draw(st.integers(0, 4))] = new
    return bytes(content)


def outcome(load: Any, content: bytes, path: Path) -> str:
    """Check that ``load`` gives a valid result or a clear error, in time; says which."""
    path.write_bytes(content)
    started = time.process_time()
    try:
        loaded = load(path)
    except ConfigError as error:
        assert 10 < len(str(error)) < 1500
        result = "ConfigError"
    else:
        assert isinstance(loaded, (ModelConfig, DeepSpeedConfig))
        result = "valid"
    assert time.process_time() - started < MAX_SECONDS
    return result


def dumped(tree: Any) -> bytes:
    return yaml.safe_dump(tree).encode("utf-8", "surrogatepass")


MODEL = yaml.safe_load(OFFICIAL.read_text(encoding="utf-8"))
MODEL_FILES = st.one_of(
    changed(MODEL).map(dumped), damaged(OFFICIAL.read_text(encoding="utf-8")), st.binary(max_size=99)
)
DS_FILES = st.one_of(
    changed(TRAINING).map(lambda tree: json.dumps(tree).encode()),
    damaged(json.dumps(TRAINING, indent=1)), damaged(DS_CONFIG.read_text(encoding="utf-8")), st.binary(max_size=99),
)  # fmt: skip


@quick_and_slow(150, 10_000)
def test_any_model_configuration(attempt: Try, tmp_path: Path) -> None:
    counts = attempt(MODEL_FILES, lambda content: outcome(load_model_config, content, tmp_path / "config.yaml"))
    logger.info("%s", dict(counts))
    assert min(counts["valid"], counts["ConfigError"]) > sum(counts.values()) / 50


@quick_and_slow(150, 10_000)
def test_any_deepspeed_configuration(attempt: Try, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def load(path: Path) -> DeepSpeedConfig:
        loaded = load_ds_config(path)
        loaded.merged_into(EngineConfig(deepspeed=True))
        loaded.arguments()
        return loaded

    counts = attempt(DS_FILES, lambda content: outcome(load, content, tmp_path / "ds.json"))
    logger.info("%s", dict(counts))
    assert min(counts["valid"], counts["ConfigError"]) > sum(counts.values()) / 50


LAUGHS = "\n".join(["a0: &a0 [1, 1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 60))])
MODEL_CORPUS = {
    "empty": b"",
    "list": b"[1]",
    "nul": b"\0",
    "not UTF-8": b"gpt: \xff",
    "deep": b"[" * 50_000,
    "deep flow": b"{a: " * 50_000,
    "laughs": f"{LAUGHS}\nemo_num: *a59".encode(),
    "laughs as a name": f"{LAUGHS}\nbpe_model: *a59".encode(),
    "itself": b"gpt: &a {condition_module: *a}",
    "a long list": b"emo_num: [" + b"1," * 30_000 + b"]",
    "a long list of long lists": b"a: &a ["
    + b"1," * 9_999
    + b"]\nvocoder: {resblock_dilation_sizes: ["
    + b"*a," * 9_999
    + b"]}",
    "2 MiB": b"#" * 2**21,
    "python": b"!!python/object/apply:os.system ['touch pwned']",
    "bad date": b"version: 2020-99-99",
    "bad int": b"emo_num: [!!int 'x']",
    "bad float": b"version: !!float ''",
    "bad bool": b"text: !!bool 'x'",
    "digits": b"version: " + b"9" * 9999,
    "hexadecimal": b"gpt: {layers: 0x" + b"f" * 9999 + b"}",
    "negative": b"gpt: {layers: -1}",
    "endless": b"gpt: {layers: 1000000}",
    "infinite": b"version: .inf",
    "no number": b"version: .nan",
    "merge": b"<<: 1",
    "key": b"? [a]\n: 1",
    "long name": b"bpe_model: " + b"x" * 999,
}


@pytest.mark.parametrize("name", MODEL_CORPUS)
def test_model_corpus(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert outcome(load_model_config, MODEL_CORPUS[name], tmp_path / "config.yaml") == "ConfigError"
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


DS_CORPUS = {
    "empty": b"",
    "list": b"[]",
    "not UTF-8": b"\xff\xfe",
    "deep": b"[" * 30_000,
    "deep keys": b'{"inference":' * 4000,
    "100 KB": b" " * 100_000,
    "long string": b'{"dtype": "' + b"x" * 60_000 + b'"}',
    "digits": b'{"mp_size": ' + b"9" * 9999 + b"}",
    "hexadecimal": b'{"mp_size": 0x' + b"f" * 9999 + b"}",
    "hexadecimal text": b'{"dtype": 0x' + b"f" * 9999 + b"}",
    "infinite": b'{"mp_size": Infinity}',
    "no number": b'{"mp_size": NaN}',
    "twice": b'{"mp_size": 1, "mp_size": 2}',
    "many keys": b"{" + b",".join(b'"k%d": 1' % i for i in range(5000)) + b"}",
}


@pytest.mark.parametrize("name", DS_CORPUS)
def test_deepspeed_corpus(name: str, tmp_path: Path) -> None:
    assert outcome(load_ds_config, DS_CORPUS[name], tmp_path / "ds.json") == "ConfigError"


@quick_and_slow(15, 500)
def test_the_bundled_model_under_any_configuration(attempt: Try, tmp_path: Path) -> None:
    """What is a valid configuration must fit the files, or be refused by name."""
    folder = tmp_path / "model"
    shutil.copytree(NANO_DIR, folder)
    original = yaml.safe_load((NANO_DIR / "config.yaml").read_text(encoding="utf-8"))

    def load(content: bytes) -> str:
        (folder / "config.yaml").write_bytes(content)
        started = time.process_time()
        try:
            load_models(*locate(folder), torch.device("cpu"))
            result = "loaded"
        except IndexTTSError as error:
            assert isinstance(error, (CheckpointError, ConfigError)) and len(str(error)) < 6000
            result = type(error).__name__
        assert time.process_time() - started < MAX_SECONDS
        return result

    counts = attempt(changed(original).map(dumped), load)
    logger.info("%s", dict(counts))
    assert counts["ConfigError"] > 0
