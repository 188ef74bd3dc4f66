"""Half precision: what is converted and what is not, and how far each network then is from float32."""

from __future__ import annotations

import fnmatch
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from indextts.accel import conversion
from indextts.accel.apply import _precision
from indextts.accel.precision import KEPT, apply_precision
from indextts.checkpoints import BUNDLED_DIR, locate
from indextts.config import EngineConfig, SamplingParams
from indextts.engine import Engine
from indextts.loading import Models, load_models
from indextts.models.flow_matching import euler_step, start_flow
from indextts.random_weights import random_models, tiny_config
from indextts.stages.conditioning import ConditioningStage
from indextts.stages.s2mel import S2MelStage
from indextts.types import Conditioning, SpeechCodes, SynthesisRequest, VoicePrompt

HALVES = [torch.float16, torch.bfloat16]
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.Embedding)
LEAST_DB = {torch.float16: 45.0, torch.bfloat16: 28.0}
"""How far above its error the result of a network is: rounding alone gives some 60 and 42 dB."""


def halved(folder: Path, dtype: torch.dtype) -> Models:
    return load_models(*locate(folder), torch.device("cpu"), partial(apply_precision, dtype=dtype))


def assert_near(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    error = (got.float() - expected).square().mean()
    assert error > 0, "half precision must make some difference, or nothing is tested"
    assert 10 * torch.log10(expected.square().mean() / error) > LEAST_DB[dtype]


@pytest.fixture(scope="module")
def spoken(tiny_engine: Engine, recordings: tuple[Path, Path]) -> tuple[Conditioning, list[SpeechCodes]]:
    stages, voice = tiny_engine.stages, VoicePrompt.from_path(recordings[0])
    request = SynthesisRequest("", voice)
    conditioning = stages.conditioning(voice, request.emotion, "", 0)
    segments = tiny_engine.segment("Hello there, my friend. How are you?", 8)
    sampling = SamplingParams(max_mel_tokens=30, num_beams=1, do_sample=False)
    return conditioning, stages.speech(segments, conditioning, sampling, None)


@pytest.mark.parametrize("dtype", HALVES)
@torch.inference_mode()
def test_every_network_stays_near_float32(
    tiny_engine: Engine,
    tiny_model_dir: Path,
    recordings: tuple[Path, Path],
    spoken: tuple[Conditioning, list[SpeechCodes]],
    dtype: torch.dtype,
) -> None:
    models, exact = halved(tiny_model_dir, dtype), tiny_engine.models
    conditioning, speeches = spoken
    voice = conditioning.voice

    stage = ConditioningStage(models, tiny_engine.stages.conditioning.emotions, None, 0)
    heard = stage.voice(VoicePrompt.from_path(recordings[0]))
    assert_near(heard.semantic_embedding, voice.semantic_embedding, dtype)
    assert torch.equal(heard.style, voice.style) and torch.equal(heard.prompt_mel, voice.prompt_mel)
    projected = models.semantic_codec.project(voice.semantic_embedding)
    assert_near(projected, exact.semantic_codec.project(voice.semantic_embedding), dtype)
    heard_by_gpt = stage.gpt_input(voice.semantic_embedding)
    assert_near(models.gpt.condition(*heard_by_gpt), voice.speaker_latents, dtype)
    assert_near(models.gpt.emotion_vector(*heard_by_gpt), voice.emotion_vector, dtype)

    latents, emotion = (x.to(dtype) for x in (voice.speaker_latents, conditioning.emotion_vector))
    for speech in speeches:
        ids = torch.tensor([speech.segment.token_ids])
        got = models.gpt.code_logits(models.gpt.latents(latents, emotion, ids, speech.codes[None]))
        expected = exact.gpt.code_logits(
            exact.gpt.latents(voice.speaker_latents, conditioning.emotion_vector, ids, speech.codes[None])
        )
        assert_near(got, expected, dtype)

    mels = [S2MelStage(m)(speeches, voice, torch.Generator().manual_seed(1)) for m in (models, exact)]
    for got, expected in zip(*mels, strict=True):
        assert got.dtype == torch.float32
        assert_near(got, expected, dtype)
        wave = models.vocoder(expected)
        assert wave.dtype == torch.float32
        assert_near(wave, exact.vocoder(expected), dtype)


@pytest.mark.parametrize("dtype", HALVES)
@torch.inference_mode()
def test_the_solvers_state_stays_float32(tiny_model_dir: Path, dtype: torch.dtype) -> None:
    net = halved(tiny_model_dir, dtype).s2mel
    config = locate(tiny_model_dir)[0].s2mel
    mels, width, style = config.DiT.in_channels, config.DiT.content_dim, config.style_encoder.dim
    inputs = (torch.randn(1, mels, 40), torch.randn(1, 40, width), torch.randn(1, mels, 12), torch.randn(1, style))
    flow = start_flow(net.estimator, *inputs, steps=4, cfg_rate=0.7)
    attention = net.estimator.transformer.layers[0].attention.wqkv  # type: ignore[union-attr]
    assert attention.weight.dtype == dtype
    dtypes = {x.dtype for x in (flow.x, flow.modulations, flow.durations, flow.known.merged, flow.known.rotary)}
    velocity = net.estimator.velocity(flow.x.repeat(2, 1, 1), flow.modulations[:1], flow.known)
    before, address = flow.x.clone(), flow.x.data_ptr()
    euler_step(net.estimator, flow)
    assert dtypes | {velocity.dtype, flow.x.dtype} == {torch.float32}
    assert flow.x.data_ptr() == address and not torch.equal(flow.x, before)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_model_in_half_precision_speaks(tiny_model_dir: Path, recordings: tuple[Path, Path], dtype: torch.dtype):
    """What ``--fp16`` and ``--bf16`` do on CUDA, done here."""
    engine = Engine.load(EngineConfig(model_dir=tiny_model_dir, device="cpu"))
    for name, network in engine.models.networks().items():
        apply_precision(name, network, dtype)
    sampling = SamplingParams(max_mel_tokens=8, num_beams=2)
    voice = VoicePrompt.from_path(recordings[0])
    request = SynthesisRequest("Hello there.", voice, sampling=sampling, seed=1, repair=False)
    assert engine.stages.conditioning(request.voice, request.emotion, "", 1).emotion_vector.dtype == dtype
    assert np.abs(engine.synthesize(request).samples).max() > 0


def test_what_stays_float32_is_there_and_all_else_is_converted() -> None:
    models = random_models(tiny_config(), torch.device("cpu"), 0, partial(apply_precision, dtype=torch.bfloat16))
    assert set(KEPT) == set(models.networks())
    for name, network in models.networks().items():
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        for pattern in KEPT[name]:
            assert fnmatch.filter(tensors, pattern), f"{name}: nothing is called {pattern}"
        kept = {key for pattern in KEPT[name] for key in fnmatch.filter(tensors, pattern)}
        of_float = {key for key, tensor in tensors.items() if tensor.is_floating_point()}
        assert {key for key in of_float if tensors[key].dtype == torch.float32} == kept & of_float, name


def test_weights_are_converted_before_they_go_to_the_device(tiny_model_dir: Path) -> None:
    """On their way to a device that has no memory at all, the last thing that happens is the change of place."""
    placed: dict[str, torch.device] = {}

    def convert(name: str, network: torch.nn.Module) -> None:
        placed[name] = next(network.parameters()).device
        apply_precision(name, network, torch.float16)

    models = load_models(*locate(tiny_model_dir), torch.device("meta"), convert)
    assert placed == dict.fromkeys(models.networks(), torch.device("cpu"))
    assert models.gpt.mel_head.weight.dtype == torch.float16 and models.gpt.mel_head.weight.is_meta


@pytest.mark.parametrize(
    ("options", "device", "dtype"),
    [
        ({}, "cuda", None),
        ({"fp16": True}, "cpu", None),
        ({"fp16": True}, "cuda", torch.float16),
        ({"bf16": True}, "cuda", torch.bfloat16),
    ],
)
def test_what_is_asked_for_decides(options: dict[str, bool], device: str, dtype: torch.dtype | None) -> None:
    convert = conversion(EngineConfig(**options), torch.device(device))  # type: ignore[arg-type]
    assert (convert and convert.keywords["dtype"]) == dtype  # type: ignore[union-attr]


def test_a_deepspeed_configuration_asks_too(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text('{"fp16": {"enabled": true}}')
    convert = conversion(EngineConfig(deepspeed=True, ds_config=path), torch.device("cuda"))
    assert convert is not None and convert.keywords["dtype"] == torch.float16  # type: ignore[attr-defined]


def test_the_report_says_what_is_halved_and_it_is() -> None:
    models = random_models(tiny_config(), torch.device("cpu"), 0)
    entry = _precision(models, EngineConfig(fp16=True), on_cuda=True)  # as if this were CUDA
    assert entry.honoured and entry.option == "fp16"
    halved, _, exact = entry.running.partition("; float32")
    weights = {
        "semantic encoder": models.semantic_encoder.feature_projection.projection,
        "codec": models.semantic_codec.encoder[1],
        "language model": models.gpt.mel_head,
        "flow": models.s2mel.estimator.conv1,
        "vocoder": models.vocoder.ups[0][0],  # type: ignore[index]
        "style encoder": models.style_encoder.head.conv1,
    }
    for name, layer in weights.items():
        dtype = torch.float16 if name in halved else torch.float32
        assert layer.weight.dtype == dtype and (name in halved) != (name in exact), name


def test_the_bundled_voice_stays_far_from_the_end_of_float16() -> None:
    """What the layers that may be in half precision take in and give out, when it speaks in float32."""
    engine = Engine.load(EngineConfig(model_dir=BUNDLED_DIR, device="cpu", qwen_emotion=False))
    peaks: dict[str, float] = {}

    def watch(name: str, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        peaks[name] = max([peaks.get(name, 0.0), *(float(x.abs().max()) for x in (*inputs, output))])

    for name, kept in KEPT.items():
        for path, layer in getattr(engine.models, name).named_modules():
            key = f"{path}.weight"
            if isinstance(layer, LAYERS) and not any(fnmatch.fnmatchcase(key, pattern) for pattern in kept):
                layer.register_forward_hook(lambda _, x, y, name=f"{name}.{path}": watch(name, x, y))
    voice = VoicePrompt.from_path(BUNDLED_DIR.parents[1] / "examples" / "voice_01.wav")
    engine.synthesize(SynthesisRequest("Have you ever seen snow fall on the beach?", voice, seed=1, repair=False))
    assert {name.split(".")[0] for name in peaks} == KEPT.keys() - {"style_encoder"}
    near = {name: peak for name, peak in peaks.items() if peak > torch.finfo(torch.float16).max / 4}
    assert not near
