"""The trainings of the semantic networks run from generated speech to extracted codes, and resume."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from indextts.audio import semantic_features
from indextts.config import SemanticCodecConfig, W2VBertConfig
from indextts.config_file import load_model_config
from indextts.models.semantic_codec import SemanticCodec
from indextts.models.semantic_encoder import SemanticEncoder
from tests.training.no_waiting import NoWaiting
from training.dataset import SpeechData
from training.frames import Crops, CropSampler, FrameHeads, weighted
from training.graphs import trainable_step
from training.semantics import Semantics
from training.train_semantic_codec import CodebookLearner, CodecStep, CodecTask, embed
from training.train_semantic_encoder import EncoderStep, Heldout, VoiceAdversary, evaluate

CONFIG = Path(__file__).parents[2] / "checkpoints" / "nano" / "config.yaml"


def run(module: str, data: Path, out: Path, *options: str) -> str:
    command = [sys.executable, "-m", module, "--data", str(data), "--out", str(out), "--smoke"]
    done = subprocess.run(
        [*command, "--config", str(CONFIG), *options], capture_output=True, text=True, cwd=CONFIG.parents[2]
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_speech_to_codes(toy_speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "phone" in run("training.train_semantic_encoder", toy_speech, out)
    assert "resumed at step 3" in run("training.train_semantic_encoder", toy_speech, out, "--resume")
    assert "perplexity" in run("training.train_semantic_codec", toy_speech, out)
    run("training.extract_semantics", toy_speech, out)
    semantics = Semantics(out, "cpu")
    semantics.check(SpeechData(toy_speech, "cpu"))
    codec = SemanticCodec(load_model_config(CONFIG).semantic_codec)
    codec.load_state_dict(load_file(out / "semantic_codec.safetensors"), strict=True)
    codes, lengths = semantics.codes([0, 1])
    assert codes.max() < semantics.codebook_size and (lengths > 0).all()
    assert torch.isfinite(semantics.embeddings([0], augmented=True)[0]).all()


def small_encoder() -> SemanticEncoder:
    sizes = W2VBertConfig(
        hidden_size=16, num_attention_heads=2, intermediate_size=24, conv_depthwise_kernel_size=5, output_layer=2
    )
    return SemanticEncoder(sizes)


def padded_crops(root: Path) -> Crops:
    """Crops of which some are shorter than the batch is wide."""
    crops = CropSampler(SpeechData(root, "cpu"), seed=0).crops(torch.tensor([0, 5, 1, 3]), 0, 40000)
    assert not crops.labels.valid.all()
    return crops


@pytest.fixture
def encoder_step() -> EncoderStep:
    torch.manual_seed(0)
    return EncoderStep(small_encoder(), FrameHeads(16), VoiceAdversary(16, 2))


@pytest.fixture
def codec_step() -> CodecStep:
    torch.manual_seed(0)
    codec = SemanticCodec(SemanticCodecConfig(32, 16, 4, 12, 16, 2))
    codec.quantizer.first.codebook.requires_grad_(False)
    codebook = CodebookLearner(codec.quantizer.first)
    codebook.start(torch.randn(100, 4))
    encoder = small_encoder().eval().requires_grad_(False)
    return CodecStep(encoder, codec, CodecTask(SemanticCodecConfig(32, 16, 4, 12, 16, 2)), codebook)


def codec_batch(crops: Crops) -> tuple[torch.Tensor, ...]:
    """Clean recordings, and the first half once more as if degraded."""
    half = len(crops.wave) // 2
    wave = torch.cat([crops.wave, crops.wave[:half] + 0.01])
    num_samples = torch.cat([crops.num_samples, crops.num_samples[:half]])
    return *semantic_features(wave, num_samples), *crops.labels


@pytest.fixture
def capturing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries that ask are told that this is the capture of a graph, as it is on a GPU."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)


@pytest.mark.usefixtures("capturing")
def test_the_steps_never_wait_for_the_device(
    encoder_step: EncoderStep, codec_step: CodecStep, toy_speech: Path
) -> None:
    crops = padded_crops(toy_speech)
    features, mask = semantic_features(crops.wave, crops.num_samples)
    batch = codec_batch(crops)
    with NoWaiting():
        encoder_step.compute(features, mask, crops.voice, torch.tensor(0.1), *crops.labels)
        codec_step.compute(*batch)


def test_encoder_step_learns_what_its_losses_say(encoder_step: EncoderStep, toy_speech: Path) -> None:
    crops = padded_crops(toy_speech)
    features, mask = semantic_features(crops.wave, crops.num_samples)
    strength = torch.tensor(0.3)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = encoder_step.encoder(features, mask)
        losses = encoder_step.heads.losses(hidden, crops.labels)
        voice = encoder_step.adversary.loss(hidden.float(), crops.labels.valid, crops.voice, strength)
    used = [p for p in encoder_step.weights if p is not encoder_step.encoder.masked_spec_embed]
    gradients = torch.autograd.grad(weighted(losses) + voice, used)
    norm = torch.stack([g.norm() for g in gradients]).norm()

    figures = encoder_step.compute(features, mask, crops.voice, strength, *crops.labels)
    for name, value in (losses | {"voice": voice, "norm": norm}).items():
        torch.testing.assert_close(figures[name], value.detach(), rtol=0.02, atol=1e-4)
    for weight, gradient in zip(used, gradients, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, gradient / norm.clamp(min=1), rtol=0.05, atol=0.01)


def test_codec_step_counts_valid_frames_only(codec_step: CodecStep, toy_speech: Path) -> None:
    crops = padded_crops(toy_speech)
    features, mask, *_ = batch = codec_batch(crops)
    valid, quantizer = crops.labels.valid, codec_step.codec.quantizer.first
    embeddings = embed(codec_step.encoder, features, mask)
    inputs = torch.cat([embeddings[4:], embeddings[2:4]])
    with torch.autocast("cpu", torch.bfloat16):
        z_e = torch.nn.functional.normalize(codec_step.codec.project(inputs).float(), dim=1)
        codes = quantizer.encode(z_e)
    rows = codec_step.codebook.sums.clone()
    commitment = (z_e - quantizer.lookup(codes)).square().sum(1)[valid].mean()
    counts = codec_step.codebook.counts.lerp(torch.bincount(codes[valid], minlength=32).float(), 0.02)

    figures = codec_step.compute(*batch)
    assert not torch.equal(rows, codec_step.codebook.sums)
    torch.testing.assert_close(figures["commitment"], commitment.detach())
    alive = counts > 0.1 * counts.mean()
    torch.testing.assert_close(codec_step.codebook.counts[alive], counts[alive])
    assert alive.any() and figures["perplexity"] > 1


def test_steps_make_the_losses_fall(encoder_step: EncoderStep, codec_step: CodecStep, toy_speech: Path) -> None:
    crops = padded_crops(toy_speech)
    features, mask = semantic_features(crops.wave, crops.num_samples)
    batch = codec_batch(crops)
    for step, tensors, name in (
        (encoder_step, (features, mask, crops.voice, torch.tensor(0.0), *crops.labels), "phone"),
        (codec_step, batch, "reconstruction"),
    ):
        take = trainable_step(step.compute, step.optimizer, torch.device("cpu"), print)
        first = take(*tensors)[name]
        for _ in range(20):
            step.optimizer.param_groups[0]["lr"] = 3e-3
            last = take(*tensors)[name]
        assert last < 0.9 * first, name


def test_heldout_speech_is_taken_in_as_it_comes(encoder_step: EncoderStep, toy_speech: Path) -> None:
    for name in ("voices", "sentences"):
        rows = json.loads((toy_speech / f"{name}.json").read_text())
        rows[1]["heldout"] = True
        (toy_speech / f"{name}.json").write_text(json.dumps(rows))
    mark = (toy_speech / "shard_00000.json").rename(toy_speech / "unfinished")
    heldout = Heldout(Namespace(data=toy_speech, smoke=True), torch.device("cpu"))
    assert heldout.batches == [] and evaluate(encoder_step.encoder, encoder_step.heads, heldout.batches) == {}
    mark.rename(toy_speech / "shard_00000.json")
    heldout.refresh()
    drawn = heldout.batches
    assert drawn[0][0].voice.tolist() == [1] * 4 and drawn[0][1].shape == drawn[0][0].wave.shape
    figures = evaluate(encoder_step.encoder, encoder_step.heads, drawn)
    assert {"clean_phone_accuracy", "augmented_energy_db"} <= figures.keys()
    heldout.refresh()
    assert heldout.batches is drawn
