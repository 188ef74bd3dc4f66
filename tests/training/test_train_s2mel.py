"""Batches for the flow are what they claim to be, and both stages run from data to weights that load and learn."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from indextts.audio import log_mel
from indextts.config_file import load_model_config
from indextts.models.gpt import UnifiedVoice
from indextts.models.s2mel import S2Mel
from indextts.models.semantic_codec import SemanticCodec
from tests.training.no_waiting import NoWaiting
from training import train_s2mel
from training.dataset import SAMPLE_RATE_HZ, SpeechData
from training.gpt_batches import GPTBatch, GPTBatches
from training.s2mel_batches import BANDS, MAX_TARGET_CODES, MIN_CODES, Rows, S2MelBatches
from training.semantics import Semantics, SemanticsWriter

VOICES, PER_VOICE, DIM, CODES, STYLE = 8, 4, 12, 40, 6
HELDOUT_VOICES, HELDOUT_SENTENCES = 2, 10
CONFIG_YAML = f"""
semantic_codec: {{codebook_size: {CODES}, hidden_size: {DIM}, codebook_dim: 4, vocos_dim: 8,
                  vocos_intermediate_dim: 8, vocos_num_layers: 1}}
gpt:
  model_dim: 16
  layers: 1
  heads: 2
  max_mel_tokens: 180
  max_text_tokens: 40
  number_text_tokens: 50
  number_mel_codes: {CODES + 2}
  start_mel_token: {CODES}
  stop_mel_token: {CODES + 1}
  condition_num_latent: 3
  cond_input_dim: {DIM}
  emo_perceiver_dim: 8
  condition_module: {{output_size: 8, linear_units: 8, attention_heads: 2, num_blocks: 1, perceiver_mult: 1}}
  emo_condition_module: {{output_size: 8, linear_units: 8, attention_heads: 2, num_blocks: 1, perceiver_mult: 1}}
s2mel:
  style_encoder: {{dim: {STYLE}}}
  length_regulator: {{channels: 16, in_channels: {DIM}}}
  DiT: {{hidden_dim: 16, num_heads: 2, depth: 2, content_dim: 16}}
  wavenet: {{hidden_dim: 16, num_layers: 1}}
  gpt_layer_dims: [16, 8, {DIM}]
  steps: 2
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech, semantics, styles and untrained networks that fit together; a code tells its place in the utterance."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    (root / "config.yaml").write_text(CONFIG_YAML)
    voice = np.repeat(np.arange(VOICES), PER_VOICE).astype(np.int32)
    heldout = voice >= VOICES - HELDOUT_VOICES
    sentence = np.tile(np.arange(PER_VOICE), VOICES) + np.where(heldout, HELDOUT_SENTENCES, 0)
    voices = [{"name": f"v{i}", "heldout": i >= VOICES - HELDOUT_VOICES} for i in range(VOICES)]
    text = {"text": "x", "language": "en", "phonemes": ""}
    sentences = [text | {"heldout": i >= HELDOUT_SENTENCES} for i in range(HELDOUT_SENTENCES + PER_VOICE)]
    (root / "voices.json").write_text(json.dumps(voices))
    (root / "sentences.json").write_text(json.dumps(sentences))
    length = random.integers(SAMPLE_RATE_HZ, 5 * SAMPLE_RATE_HZ, len(voice))
    length[0], length[1] = SAMPLE_RATE_HZ // 4, 17 * SAMPLE_RATE_HZ  # too short, and longer than is taken whole
    np.savez(
        root / "shard_00000.npz",
        offset=np.cumsum(length) - length,
        length=length,
        voice=voice,
        sentence=sentence.astype(np.int32),
        language=np.zeros(len(voice), np.int8),
        style=np.zeros(len(voice), np.int8),
        intensity=np.zeros(len(voice), np.float32),
        phone_ids=np.ones(len(voice), np.int16),
        phone_frames=np.full(len(voice), 10, np.int16),
        phone_offset=np.arange(len(voice) + 1),
    )
    random.normal(0, 3000, int(length.sum())).astype("<i2").tofile(root / "shard_00000.pcm")
    (root / "shard_00000.json").write_text("{}")
    text_lengths = random.integers(3, 30, len(sentences))
    ids = random.integers(2, 50, text_lengths.sum()).astype(np.int16)
    offsets = np.concatenate(([0], np.cumsum(text_lengths)))
    np.savez(root / "tokens.npz", ids=ids, offsets=offsets, places=np.full(len(ids), -1, np.int16))
    for split, styles in (("train", "style.npy"), ("heldout", "style_heldout.npy")):
        data = SpeechData(root, "cpu", split)  # type: ignore[arg-type]
        frames = ((data.num_samples(range(len(data))).numpy() * 320 // 441 - 240) // 320).astype(np.int64)
        writer = SemanticsWriter(root, data, frames, DIM, CODES)
        for index in range(len(data)):
            codes = torch.arange(int(frames[index]))[None] % CODES
            writer.write(torch.tensor([index]), codes, *torch.randn(2, 1, codes.shape[1], DIM))
        writer.finish()
        np.save(root / styles, random.normal(size=(len(data), STYLE)).astype(np.float16))
    config = load_model_config(root / "config.yaml")
    save_file(SemanticCodec(config.semantic_codec).state_dict(), root / "semantic_codec.safetensors")
    save_file(UnifiedVoice(config.gpt).state_dict(), root / "gpt.safetensors")
    return root


@pytest.fixture
def batches(root: Path) -> S2MelBatches:
    config = load_model_config(root / "config.yaml")
    codec = SemanticCodec(config.semantic_codec)
    codec.load_state_dict(load_file(root / "semantic_codec.safetensors"))
    data = SpeechData(root, "cpu")
    styles = torch.from_numpy(np.load(root / "style.npy")).float()
    return S2MelBatches(data, Semantics(root, "cpu"), styles, codec.eval(), config.s2mel, seed=0)


def test_an_epoch_has_every_usable_utterance(batches: S2MelBatches) -> None:
    parts = list(batches.epoch(1500))
    assert set(np.concatenate([part.target for part in parts])) == set(batches.usable)
    assert set(range(len(batches.length))) - set(batches.usable) == {0}  # the one that is too short
    for part in parts:
        assert len(part) == 1 or batches.gather(part).mel[:, 0].numel() <= 1500


def test_shapes_recur(batches: S2MelBatches) -> None:
    widths, rows_of_width = set(), {}
    for _ in range(20):
        for rows in batches.epoch(3000):
            batch = batches.gather(rows, degraded=bool(batches.random.random() < 0.5))
            widths.add((*(tensor.shape for tensor in batch.tensors()), *batch.widths.items()))
            width = batch.mel.shape[2]
            assert rows_of_width.setdefault(width, len(rows)) == len(rows) == max(1, 3000 // width)
            one = batches.gather(rows.take(np.array([0])))  # whatever rows there are, their width stays
            assert one.widths == batch.widths
    assert 2 < len(widths) == len(rows_of_width) <= BANDS


def test_every_width_is_enough(batches: S2MelBatches) -> None:
    """Even for the longest prompt before the longest target, and for the rows at the upper edge of a width."""
    longest, zero = np.full(1, batches.length.argmax()), np.zeros(1, np.int64)
    codes, prompt_codes = (
        np.minimum(batches.length[longest], limit) for limit in (MAX_TARGET_CODES, batches.longest_prompt_codes)
    )
    rows = batches.draw(np.resize(batches.usable, 5000))
    order = np.argsort(rows.target_codes + rows.prompt_codes)
    similar = [rows.take(part) for part in np.array_split(order, 100)]
    for some in (Rows(longest, zero, codes, longest, zero, prompt_codes), *similar):
        batch = batches.gather(some)
        assert batch.prompt_lens.max() <= batch.prompt_frames <= batch.target_frames
        assert batch.x_lens.max() <= batch.target_frames == batch.mel.shape[2] == batch.prompt_mel.shape[2]
        assert batch.prompt_codes.max() <= batch.prompt_embeddings.shape[1]
        assert batch.target_codes.max() <= batch.target_embeddings.shape[1]


def test_prompts_are_of_the_same_voice_and_never_overlap_the_target(batches: S2MelBatches) -> None:
    own = others = 0
    for _ in range(20):
        rows = batches.draw(batches.usable)
        assert (batches.voice[rows.prompt] == batches.voice[rows.target]).all()
        same = rows.prompt == rows.target
        end = rows.prompt_begin + rows.prompt_codes
        assert (end[same] == rows.target_begin[same]).all()
        assert (end <= batches.length[rows.prompt]).all()
        assert (rows.target_begin + rows.target_codes <= batches.length[rows.target]).all()
        assert (rows.target_codes >= MIN_CODES).all() and (rows.target_codes <= MAX_TARGET_CODES).all()
        assert (rows.prompt_codes > 0).all()
        own += same.sum()
        others += (~same).sum()
    assert 0.3 < own / (own + others) < 0.55


def test_a_batch_holds_what_was_chosen(batches: S2MelBatches) -> None:
    rows = batches.draw(batches.usable)
    batch = batches.gather(rows)
    wave_hop, mel_config = 256, batches.mel.config
    for i in range(len(rows)):
        prompt, speech = int(batch.prompt_lens[i]), int(batch.target_lens[i])
        assert speech == int(np.float32(rows.target_codes[i]) * np.float32(1.72))
        assert torch.equal(batch.style[i], batches.styles[rows.prompt[i]])
        for kind, mel, first, count in (
            ("target", batch.mel[i], prompt, speech),
            ("prompt", batch.prompt_mel[i], 0, prompt),
        ):
            utterance, begin = int(getattr(rows, kind)[i]), int(getattr(rows, f"{kind}_begin")[i])
            whole = log_mel(batches.data.wave([utterance]), mel_config)[0]
            start = round(begin * SAMPLE_RATE_HZ / 50 / wave_hop)
            inner = whole[:, start : start + count]
            torch.testing.assert_close(mel[:, first : first + count][:, : inner.shape[1]], inner, atol=0.01, rtol=0)
            assert count - inner.shape[1] <= 1
            assert not mel[:, :first].any() and not mel[:, first + count :].any()
            codes = (torch.arange(int(getattr(rows, f"{kind}_codes")[i])) + begin) % CODES
            expected = batches.codec.vq2emb(codes[None])[0].T
            got = getattr(batch, f"{kind}_embeddings")[i, : len(codes)]
            torch.testing.assert_close(got, expected)
        assert torch.equal(batch.speech[i, 0].nonzero()[:, 0], torch.arange(prompt, prompt + speech))


def test_degraded_prompts_leave_the_target_alone(batches: S2MelBatches) -> None:
    rows = batches.draw(batches.usable)
    clean, degraded = batches.gather(rows), batches.gather(rows, degraded=True)
    assert torch.equal(clean.mel, degraded.mel)
    assert degraded.prompt_mel.shape == clean.prompt_mel.shape
    assert (degraded.prompt_mel - clean.prompt_mel).abs()[clean.prompt_mel != 0].mean() > 0.1
    assert not degraded.prompt_mel[~(clean.prompt_mel != 0).any(1, keepdim=True).expand_as(clean.prompt_mel)].any()
    assert (degraded.prompt_embeddings[:, 0] - clean.prompt_embeddings[:, 0]).abs().max() > 0


def test_times_cover_the_flow_and_lean_to_the_noise() -> None:
    t = train_s2mel.draw_times(1000, torch.Generator().manual_seed(0))
    assert 0 <= t.min() < 0.01 and 0.95 < t.max() <= 1
    assert 0.28 < t.median() < 0.31  # 1 - cos(pi / 4) = 0.293


def test_dropped_conditions_are_those_of_the_unconditional_branch(batches: S2MelBatches, root: Path) -> None:
    torch.manual_seed(0)
    model = S2Mel(load_model_config(root / "config.yaml").s2mel)
    batch = batches.gather(batches.draw(batches.usable[:3]))
    noise, t = torch.randn(batch.mel.shape), torch.full((3,), 0.4)
    mu = train_s2mel.conditions(model, batch, None)
    seen: list[tuple[torch.Tensor, ...]] = []
    model.estimator.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs))
    train_s2mel.flow_loss(model, batch, mu, t, noise, torch.tensor([1.0, 0.0, 1.0]))
    x, prompt_x, _, _, style, cond = seen[0]
    for known in (prompt_x, style, cond):
        assert not known[1].any() and known[0].any() and known[2].any()
    assert x[1].any() and not x.masked_fill(batch.speech, 0).any()


def test_the_loss_is_zero_for_the_true_velocity(batches: S2MelBatches, root: Path) -> None:
    model = S2Mel(load_model_config(root / "config.yaml").s2mel)
    batch = batches.gather(batches.draw(batches.usable[:3]))
    noise = torch.randn(batch.mel.shape)
    model.estimator.forward = lambda *_args, **_kwargs: (batch.mel - noise) * batch.speech  # type: ignore[method-assign]
    mu = train_s2mel.conditions(model, batch, None)
    assert train_s2mel.flow_loss(model, batch, mu, torch.rand(3), noise, torch.ones(3)) == 0


@pytest.fixture
def latents(batches: S2MelBatches, root: Path) -> train_s2mel.Latents:
    config = load_model_config(root / "config.yaml").gpt
    gpt = UnifiedVoice(config)
    gpt.load_state_dict(load_file(root / "gpt.safetensors"))
    source = GPTBatches(batches.data, batches.semantics, root / "tokens.npz", config, batches.device, seed=0)
    return train_s2mel.Latents(gpt.eval(), source, batches.target_width)


def test_latents_are_of_the_targets_and_as_many_as_before(
    batches: S2MelBatches, latents: train_s2mel.Latents, monkeypatch: pytest.MonkeyPatch
) -> None:
    unusable = np.setdiff1d(batches.usable, latents.source.usable)
    assert len(unusable)  # the long one
    read: list[GPTBatch] = []
    gather = latents.source.gather
    monkeypatch.setattr(latents.source, "gather", lambda choice: read.append(gather(choice)) or read[-1])
    rows = batches.draw(np.resize(batches.usable, 2 * len(batches.usable)))
    kept, told = latents(rows)
    assert told.shape == (len(rows), batches.target_width(kept), 16) and len(kept) == len(rows)
    assert set(kept.target) == set(rows.target) - set(unusable)
    assert np.array_equal(read[0].code_lengths.numpy(), batches.length[kept.target])
    none, _ = latents(rows.take(np.isin(rows.target, unusable)))
    assert not len(none)


@pytest.mark.parametrize("stage", ["codes", "latents"])
def test_a_step_learns_and_never_waits(
    batches: S2MelBatches, latents: train_s2mel.Latents, root: Path, stage: str
) -> None:
    torch.manual_seed(0)
    model = S2Mel(load_model_config(root / "config.yaml").s2mel)
    train_s2mel.initialise(model, batches.mel.frames)
    training = train_s2mel.TrainStep(model, 1e-2, batches.device)
    rows, told = batches.draw(batches.usable[:6]), None
    if stage == "latents":
        rows, told = latents(rows)
    batch = batches.gather(rows)
    inputs = train_s2mel.step_inputs(batch, told, torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with NoWaiting():
        figures = training.compute(*inputs, **batch.widths)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert "cfm.estimator.conv2.weight" in changed
    first = float(figures["loss"])
    for _ in range(20):
        last = float(training.compute(*inputs, **batch.widths)["loss"])
    assert last < 0.95 * first  # it is noise, of which little can be learnt
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert ("gpt_layer.0.weight" in changed) == (stage == "latents")
    assert "length_regulator.content_in_proj.weight" in changed
    assert ("sketch" in figures) == (stage == "codes")


def run(monkeypatch: pytest.MonkeyPatch, root: Path, *extra: str) -> None:
    command = [
        "train",
        "--data",
        str(root),
        "--out",
        str(root),
        "--config",
        str(root / "config.yaml"),
        "--smoke",
        *extra,
    ]
    monkeypatch.setattr(sys, "argv", command)
    train_s2mel.main()
    for name in train_s2mel.RESULT.values():
        logging.getLogger(f"training.{name}").handlers.clear()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_both_stages_run_resume_and_export(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_model_config(root / "config.yaml").s2mel
    run(monkeypatch, root, "--stage", "codes")
    first = load_file(root / "s2mel_codes.safetensors")
    S2Mel(config).load_state_dict(first)
    run(monkeypatch, root, "--stage", "codes", "--resume")
    assert torch.load(root / "s2mel_codes.pt", weights_only=True)["step"] == 6
    first = load_file(root / "s2mel_codes.safetensors")
    run(monkeypatch, root, "--stage", "latents")
    second = load_file(root / "s2mel_latents.safetensors")
    S2Mel(config).load_state_dict(second)
    changed = {key for key in second if not torch.equal(first[key], second[key])}
    assert {"gpt_layer.0.weight", "length_regulator.content_in_proj.weight"} <= changed
    log = (root / "s2mel_latents.log").read_text()
    (root / "s2mel_codes.safetensors").unlink()
    run(monkeypatch, root, "--stage", "latents", "--init", str(root / "s2mel_latents.safetensors"), "--peak-lr", "1e-9")
    third = load_file(root / "s2mel_latents.safetensors")
    assert {key for key in third if not torch.allclose(second[key], third[key], atol=1e-6)} == {
        key for key in third if key.startswith("gpt_layer.")
    }
    assert "mel_l1_short" in log and "mel_l1_long" in log and "nan" not in log


def test_an_unknown_stage_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="codes, latents"):
        run(monkeypatch, root, "--stage", "both")
