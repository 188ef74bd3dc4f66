"""DeepSpeed configuration files: what is translated, what is named as training's, and what is refused, and how."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from indextts.accel import accelerate
from indextts.accel.deepspeed import DeepSpeedBackend
from indextts.accel.ds_config import (
    DEFAULT_DS_CONFIG,
    INFERENCE_KEYS,
    MAX_FILE_BYTES,
    TRAINING_KEYS,
    DeepSpeedConfig,
    check_before_loading,
    check_tensor_parallel,
    load_ds_config,
)
from indextts.config import EngineConfig
from indextts.engine import Engine
from indextts.errors import ConfigError, UnsupportedOption

GUIDE_EXAMPLE = """
{
  // half precision
  "fp16": {
    "enabled": true,
    "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16, "hysteresis": 2, "min_loss_scale": 1
  },
  "inference": {
    "tensor_parallel": {"enabled": true, "tp_size": 1}, /* one GPU */
    "enable_cuda_graph": true
  }
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.json"


def read(path: Path, content: str | bytes) -> DeepSpeedConfig:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_ds_config(path)


def test_the_default_leaves_everything_to_the_flags() -> None:
    assert load_ds_config(None) == DeepSpeedConfig(DEFAULT_DS_CONFIG)
    everything = EngineConfig(deepspeed=True, fp16=True, cuda_graph=True, ds_tp_size=5)
    assert load_ds_config(None).merged_into(everything) == everything


def test_what_the_default_shows_in_comments_is_right(path: Path) -> None:
    shown = DEFAULT_DS_CONFIG.read_text(encoding="utf-8").replace('// "', '"')
    assert read(path, shown) == DeepSpeedConfig(path, fp16=True, bf16=False, cuda_graph=True, ds_tp_size=1)


def test_the_example_of_the_guide(path: Path) -> None:
    ds_config = read(path, GUIDE_EXAMPLE)
    training_only = ("loss_scale", "loss_scale_window", "initial_scale_power", "hysteresis", "min_loss_scale")
    assert ds_config == DeepSpeedConfig(
        path, fp16=True, bf16=False, ds_tp_size=1, cuda_graph=True,
        training_only=tuple(f"fp16.{key}" for key in training_only),
    )  # fmt: skip
    merged = ds_config.merged_into(EngineConfig(deepspeed=True))
    assert merged == EngineConfig(deepspeed=True, fp16=True, cuda_graph=True)


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ('{"dtype": "torch.half"}', {"fp16": True, "bf16": False}),
        ('{"dtype": "bfloat16"}', {"fp16": False, "bf16": True}),
        ('{"dtype": "fp32"}', {"fp16": False, "bf16": False}),
        ('{"bf16": {"enabled": true}}', {"fp16": False, "bf16": True}),
        ('{"fp16": {"enabled": false}}', {"fp16": False}),
        ('{"inference": {"dtype": "fp16"}, "fp16": {"enabled": true}}', {"fp16": True, "bf16": False}),
        ('{"tp": {"tp_size": 4}}', {"ds_tp_size": 4}),
        ('{"mp_size": 2}', {"ds_tp_size": 2}),
        ('{"tensor_parallel": {"enabled": false, "tp_size": 4}}', {"ds_tp_size": 1}),
        ('{"max_tokens": 2500}', {"max_out_tokens": 2500}),
        ('{"quant": {"enabled": false}}', {"quant": {"enabled": False}}),
        ('{"kernel_inject": false}', {}),
        ('{"zero_optimization": {"stage": 3}}', {"training_only": ("zero_optimization",)}),
        ('\ufeff{"dtype": "half",}', {"fp16": True, "bf16": False}),
    ],
)
def test_the_meaning_of_a_key(path: Path, content: str, values: dict[str, Any]) -> None:
    assert read(path, content) == DeepSpeedConfig(path, **values)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"enable_cuda_grph": true}', "'enable_cuda_grph' .* did you mean 'enable_cuda_graph'"),
        ('{"train_batchsize": 4}', "did you mean 'train_batch_size'"),
        ('{"inference": {"train_batch_size": 4}}', "'inference.train_batch_size' is not a key"),
        ('{"inference": {"inference": {}}}', "'inference.inference' is not a key"),
        ('{"fp16": {"lossscale": 0}}', "'fp16.lossscale' .* did you mean 'loss_scale'"),
        ('{"tensor_parallel": {"size": 2}}', "'tensor_parallel.size' .* did you mean 'tp_size'"),
        ('{"quant": {"bits": 8}}', "'quant.bits' is not a key"),
        ('{"checkpoint": "x"}', "'checkpoint' is not a key .* of use here are .*dtype"),
        ('{"replace_with_kernel_inject": true}', "cannot be true: .*beams.*padding.*num_beams 1"),
        ('{"dtype": "int8"}', 'dtype must be fp32|fp16|bf16.*, not "int8"'),
        ('{"enable_cuda_graph": "maybe"}', 'enable_cuda_graph must be true or false, not "maybe"'),
        ('{"tensor_parallel": {"tp_size": 0}}', "tensor_parallel.tp_size must be a whole number from 1 .*, not 0"),
        ('{"max_out_tokens": true}', "max_out_tokens must be a whole number"),
        ('{"fp16": true}', "fp16 must be a JSON object"),
        ('{"dtype": "fp32", "fp16": {"enabled": true}}', 'fp16.enabled is true contradicts .*dtype is "fp32"'),
        ('{"mp_size": 2, "tp": {"tp_size": 4}}', "tp.tp_size is 4 contradicts .*mp_size is 2"),
        ('{"max_tokens": 1, "max_tokens": 2}', 'Duplicate key "max_tokens"'),
        ("[]", "the file must be a JSON object"),
        ("", "it must be JSON"),
        ('{\n  "tp": 1,\n  "dtype" 2\n}', r"line 3: .*2.* it must be JSON"),
        ('{"dtype": "f\np"}', "line 1: .*it must be JSON"),
        ('{\n "dtype": ', "line 2: .*end of input"),
        (b'{\n\n"\xff": 1}', "line 3: not UTF-8"),
        ("[" * 9999, "nested too deeply"),
        ("{}" + " " * MAX_FILE_BYTES, "larger than 65,536 bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(path: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read(path, content)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere.json", ""])
def test_an_unreadable_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: (No such file|Is a directory)"):
        load_ds_config(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "flags", "says"),
    [
        ('{"fp16": {"enabled": false}}', {"fp16": True}, "--fp16 contradicts .*, where fp16.enabled is false"),
        ('{"bf16": {"enabled": true}}', {"fp16": True}, "--fp16 contradicts .*, where bf16.enabled is true"),
        ('{"dtype": "fp32"}', {"bf16": True}, '--bf16 contradicts .*, where dtype is "fp32"'),
        ('{"enable_cuda_graph": false}', {"cuda_graph": True}, "--cuda-graph contradicts .*enable_cuda_graph is false"),
        ('{"mp_size": 1}', {"ds_tp_size": 2}, "--ds-tp-size 2 contradicts .*, where mp_size is 1"),
    ],
)
def test_a_flag_against_the_file(path: Path, content: str, flags: dict[str, Any], says: str) -> None:
    read(path, content)
    with pytest.raises(ConfigError, match=says) as caught:
        check_before_loading(EngineConfig(deepspeed=True, ds_config=path, **flags))
    assert "mine.json" in str(caught.value)


def test_not_fp16_is_no_word_against_bf16(path: Path) -> None:
    merged = read(path, '{"fp16": {"enabled": false}}').merged_into(EngineConfig(bf16=True))
    assert merged == EngineConfig(bf16=True)


def test_a_file_is_for_deepspeed(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.json is for --deepspeed"):
        EngineConfig(ds_config=path)


def test_the_split_of_a_model() -> None:
    check_tensor_parallel(4, heads=20, gpus=4)
    check_tensor_parallel(4, heads=20, gpus=0)
    with pytest.raises(ConfigError, match="3 does not divide the model's 20 attention heads: use 1, 2, 4, 5, 10, 20"):
        check_tensor_parallel(3, heads=20, gpus=8)
    with pytest.raises(ConfigError, match=r"4 is more than the 2 GPU\(s\)"):
        check_tensor_parallel(4, heads=20, gpus=2)
    check_tensor_parallel(1, heads=20, gpus=2, device="cuda:1")
    check_tensor_parallel(2, heads=20, gpus=2, device="cuda:0")
    with pytest.raises(ConfigError, match=r"--device cuda:1 contradicts --ds-tp-size 2, .* CUDA_VISIBLE_DEVICES"):
        check_tensor_parallel(2, heads=20, gpus=2, device="cuda:1")


def test_a_split_that_the_model_does_not_allow_stops_the_load(tiny_engine: Engine) -> None:
    heads = tiny_engine.models.config.gpt.heads
    with pytest.raises(ConfigError, match=f"{heads + 1} does not divide the model's {heads} attention heads"):
        accelerate(tiny_engine.models, EngineConfig(device="cpu", ds_tp_size=heads + 1))


@pytest.mark.filterwarnings("default", "ignore:unclosed event loop:ResourceWarning")  # importing DeepSpeed warns
def test_deepspeed_gets_the_settings_and_the_report_tells_the_rest(
    tiny_engine: Engine, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text(
        '{"train_batch_size": 4, "fp16": {"enabled": true, "loss_scale": 0}, "max_out_tokens": 2500,'
        ' "quant": {"enabled": true}, "inference": {"enable_cuda_graph": true, "mp_size": 1}}'
    )
    config = EngineConfig(device="cpu", deepspeed=True, ds_config=path)
    with caplog.at_level(logging.INFO, "indextts"):
        backend, report = accelerate(tiny_engine.models, config)
    assert isinstance(backend, DeepSpeedBackend)
    settings = backend.engine._config
    assert (settings.dtype, settings.max_out_tokens, settings.quant.enabled) == (torch.float32, 2500, True)
    assert (settings.enable_cuda_graph, settings.tensor_parallel.tp_size) == (False, 1)
    assert [record.message for record in caplog.records if record.name.startswith("indextts")] == [
        f"{path}: these keys are for training and mean nothing here: train_batch_size, fp16.loss_scale"
    ]
    assert [entry.option for entry in report.entries if entry.honoured] == ["deepspeed"]
    refused = {entry.option: entry.reason for entry in report.entries if not entry.honoured}
    assert list(refused) == ["fp16", "ds-config max_out_tokens", "ds-config quant", "cuda-graph"]
    assert "injected" in refused["ds-config quant"]
    with pytest.raises(UnsupportedOption, match="ds-config quant"):
        accelerate(tiny_engine.models, dataclasses.replace(config, strict=True))


@pytest.mark.filterwarnings("default", "ignore:unclosed event loop:ResourceWarning")
def test_what_deepspeed_itself_refuses_is_one_line(tiny_engine: Engine, path: Path) -> None:
    path.write_text('{"quant": {"weight": {"nonsense": 1}}}')
    with pytest.raises(ConfigError, match=r"DeepSpeed refuses these settings: .*nonsense") as caught:
        accelerate(tiny_engine.models, EngineConfig(device="cpu", deepspeed=True, ds_config=path))
    assert "mine.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("default", "ignore:unclosed event loop:ResourceWarning")
def test_our_lists_are_deepspeeds(path: Path) -> None:
    """The keys with a meaning are DeepSpeed's inference keys; none of them is among those of training."""
    from deepspeed.inference.config import DeepSpeedInferenceConfig

    fields = DeepSpeedInferenceConfig.model_fields
    known = {*fields, *(info.alias for info in fields.values() if info.alias)}
    assert set(INFERENCE_KEYS) - {"fp16", "bf16", "bfloat16"} <= known
    assert not TRAINING_KEYS & known
