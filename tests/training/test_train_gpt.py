"""Batches for the language model are what they claim to be, and the trainer runs from data to weights."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from indextts.config_file import load_model_config
from indextts.models.gpt import UnifiedVoice
from tests.training.no_waiting import NoWaiting
from training import gpt_batches, train_gpt
from training.attention_guide import AttentionGuide
from training.dataset import SAMPLE_RATE_HZ, SpeechData
from training.gpt_batches import GPTBatches
from training.loop import Loop
from training.semantics import Semantics, SemanticsWriter
from training.styles import TOLD_EMOTIONS

VOICES, SENTENCES, PER_VOICE, DIM, CODES = 12, 30, 5, 12, 40
CONFIG_YAML = f"""
gpt:
  model_dim: 16
  layers: 2
  heads: 2
  max_mel_tokens: 400
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
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with speech, text ids and semantics of both splits; embeddings tell their utterance and frame."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    (root / "config.yaml").write_text(CONFIG_YAML)
    voices = [{"name": f"v{i}", "heldout": i >= VOICES - 4} for i in range(VOICES)]
    sentences = [{"text": f"s{i}", "language": "en", "phonemes": "", "heldout": i >= 20} for i in range(SENTENCES)]
    (root / "voices.json").write_text(json.dumps(voices))
    (root / "sentences.json").write_text(json.dumps(sentences))
    voice = np.repeat(np.arange(VOICES), PER_VOICE).astype(np.int32)
    sentence = np.where(voice >= VOICES - 4, random.integers(20, 30, len(voice)), random.integers(0, 20, len(voice)))
    sentence[::PER_VOICE] = np.where(voice[::PER_VOICE] >= VOICES - 4, 20, 0)
    sentence[1::PER_VOICE] = np.where(voice[1::PER_VOICE] >= VOICES - 4, 21, 1)
    length = random.integers(SAMPLE_RATE_HZ // 2, 2 * SAMPLE_RATE_HZ, len(voice))
    text_lengths = random.integers(3, 30, SENTENCES)
    symbols = text_lengths[sentence] + 2  # a silence, a symbol for each text id, a silence; all equally long
    frames = np.concatenate(
        [np.diff(np.linspace(0, n / SAMPLE_RATE_HZ * 40, k + 1).round()) for n, k in zip(length, symbols, strict=True)]
    )
    np.savez(
        root / "shard_00000.npz",
        offset=np.cumsum(length) - length,
        length=length,
        voice=voice,
        sentence=sentence.astype(np.int32),
        language=np.zeros(len(voice), np.int8),
        style=random.integers(0, 3, len(voice)).astype(np.int8),
        intensity=random.random(len(voice)).astype(np.float32),
        phone_ids=np.ones(len(frames), np.int16),
        phone_frames=frames.astype(np.int16),
        phone_offset=np.cumsum([0, *symbols]),
    )
    np.zeros(int(length.sum()), "<i2").tofile(root / "shard_00000.pcm")
    (root / "shard_00000.json").write_text("{}")
    ids = np.concatenate([np.full(n, 2 + i) for i, n in enumerate(text_lengths)]).astype(np.int16)
    places = np.concatenate([np.arange(n) for n in text_lengths]).astype(np.int16)  # each id is a symbol
    offsets = np.concatenate(([0], np.cumsum(text_lengths)))
    np.savez(root / "tokens.npz", ids=ids, offsets=offsets, places=places)
    for split in ("train", "heldout"):
        data = SpeechData(root, "cpu", split)  # type: ignore[arg-type]
        frames = (data.length_s * 50).long().numpy()
        writer = SemanticsWriter(root, data, frames, DIM, CODES)
        for index in range(len(data)):
            frame = torch.arange(int(frames[index]))
            clean = torch.full((1, len(frame), DIM), float(index))
            clean[0, :, 1] = frame.float()
            writer.write(torch.tensor([index]), (frame % CODES)[None], clean, clean)
        writer.finish()
    return root


@pytest.fixture
def batches(root: Path) -> GPTBatches:
    config = load_model_config(root / "config.yaml").gpt
    data, semantics = SpeechData(root, "cpu"), Semantics(root, "cpu")
    return GPTBatches(data, semantics, root / "tokens.npz", config, torch.device("cpu"), seed=0)


def test_an_epoch_has_every_usable_utterance(batches: GPTBatches) -> None:
    rows = list(batches.epoch(600))
    times = np.bincount(np.concatenate(rows), minlength=len(batches.voice))
    assert (times[batches.usable] >= 1).all() and times.sum() == times[batches.usable].sum()
    assert times.max() <= 2  # some fill up the last batch of their group
    assert all(len(part) * batches.row_tokens(part).max() <= 600 for part in rows if len(part) > 1)
    assert len(batches.usable) + batches.left_out == (VOICES - 4) * PER_VOICE


def test_few_shapes_recur(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpt_batches, "SMALLEST_GROUP", 4)
    config = load_model_config(root / "config.yaml").gpt
    data, semantics = SpeechData(root, "cpu"), Semantics(root, "cpu")
    batches = GPTBatches(data, semantics, root / "tokens.npz", config, torch.device("cpu"), seed=0)
    assert len(batches.groups) > 4
    assert sorted(np.concatenate(batches.groups)) == sorted(batches.usable)
    stream = train_gpt.endless(batches, 600)
    shapes = Counter(
        (batch.prompt.shape, batch.text.shape, batch.codes.shape) for batch in (next(stream) for _ in range(400))
    )
    assert len(shapes) <= len(batches.groups)


def test_prompts_are_other_sentences_of_the_same_voice(batches: GPTBatches) -> None:
    found = own = two = 0
    for _ in range(20):
        choice = batches.choose(batches.usable)
        found += len(choice.target)
        for prompt in (choice.first, choice.second[choice.two]):
            target = choice.target if prompt is choice.first else choice.target[choice.two]
            assert (batches.voice[prompt] == batches.voice[target]).all()
            assert (batches.sentence[prompt] != batches.sentence[target]).all()
        own += choice.own_emotion.sum()
        two += choice.two.sum()
        assert (choice.emotion[choice.own_emotion] == choice.first[choice.own_emotion]).all()
    assert found > 19 * len(batches.usable)
    assert 0.1 < own / found < gpt_batches.OWN_EMOTION + 0.05
    assert 0.1 < two / found < 0.6


def test_the_emotion_is_heard_in_an_utterance_of_the_same_style(batches: GPTBatches) -> None:
    for _ in range(20):
        choice = batches.choose(batches.usable)
        assert (batches.style[choice.emotion] == batches.style[choice.target]).all()


def test_where_another_voice_shows_the_emotion_the_prompt_rather_has_another_style(batches: GPTBatches) -> None:
    alike = own = count = 0
    for _ in range(20):
        choice = batches.choose(batches.usable)
        others = ~choice.own_emotion
        same = batches._alike(choice.first, choice.target)
        assert same[choice.own_emotion].all()
        alike, own, count = alike + same[others].sum(), own + choice.own_emotion.sum(), count + others.sum()
    assert own > 0 and alike / count < 0.15  # of the utterances of a voice a third have the style of the target


def test_the_length_is_told_now_and_then_to_a_model_that_listens(root: Path, batches: GPTBatches) -> None:
    choice = batches.choose(batches.usable)
    assert not batches.gather(choice).length_hints.any()
    batches.hinted = gpt_batches.HINTED
    batch = batches.gather(choice)
    told = batch.length_hints > 0
    assert torch.equal(batch.length_hints[told], batch.code_lengths[told])
    assert 0.1 < told.float().mean() < 0.7


def test_an_emotion_is_told_now_and_then_beside_the_speakers_prompt(batches: GPTBatches) -> None:
    assert not batches.gather(batches.choose(batches.usable)).style.any()
    batches.told = 0.5
    choice = batches.choose(batches.usable)
    batch = batches.gather(choice)
    told = batch.style > 0
    emotional = torch.from_numpy(batches.style[choice.target] > 0)
    assert 0.3 < told.float().sum() / emotional.float().sum() < 0.7 and not told[~emotional].any()
    assert torch.equal(batch.emotion[told], batch.prompt[told])
    assert batch.style[told].tolist() == batches.style[choice.target][told].tolist()
    expected = torch.from_numpy(batches.intensity[choice.target]).float() * told
    torch.testing.assert_close(batch.intensity, expected, rtol=0, atol=6e-4)


def test_a_told_emotion_is_mixed_with_the_one_heard_as_a_slider_does_it(batches: GPTBatches) -> None:
    torch.manual_seed(0)
    model = UnifiedVoice(batches.config).eval()
    batches.told = 1.0
    batch = batches.gather(batches.choose(batches.usable[:6]))
    heard = model.emotion_vector(batch.emotion, batch.emotion_lengths)
    assert torch.equal(train_gpt.emotion_of(model, batch), heard)  # a model that is not told
    train_gpt.add_told_emotions(model)
    table = model.get_submodule(TOLD_EMOTIONS).get_parameter("weight")
    mixed = train_gpt.emotion_of(model, batch)
    for row, (style, weight) in enumerate(zip(batch.style.tolist(), batch.intensity.tolist(), strict=True)):
        torch.testing.assert_close(mixed[row], (1 - weight) * heard[row] + weight * table[style])


@pytest.mark.parametrize("same_codec", [False, True])
def test_weights_to_begin_with_leave_the_codes_of_another_codec_out(batches: GPTBatches, same_codec: bool) -> None:
    torch.manual_seed(0)
    earlier, model = UnifiedVoice(batches.config), UnifiedVoice(batches.config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = dict(earlier.state_dict()) | {"speed_emb.weight": torch.zeros(3, 16)}
    taken = train_gpt.begin_with(model, weights, same_codec)
    of_codes = () if same_codec else ("mel_embedding.", "mel_head.")
    for name, value in model.state_dict().items():
        kept = name.startswith((*of_codes, "speed_emb.weight"))
        assert (name in taken) == (not kept)
        assert torch.equal(value, before[name] if kept else weights[name])


def test_a_batch_holds_what_was_chosen(batches: GPTBatches) -> None:
    choice = batches.choose(batches.usable[:6])
    batch = batches.gather(choice)
    for row, target in enumerate(choice.target):
        codes = batch.codes[row, : batch.code_lengths[row]]
        assert codes.tolist() == [t % CODES for t in range(int(batches.length[target]))]
        sentence = int(batches.sentence[target])
        text = batch.text[row, : batch.text_lengths[row]]
        assert len(text) == batches.text_length[sentence] and set(text.tolist()) == {2 + sentence}

        prompt = batch.prompt[row, : batch.prompt_lengths[row]]
        spoken = prompt[:, 0].tolist()
        expected = {choice.first[row], choice.second[row]} if choice.two[row] else {choice.first[row]}
        assert set(spoken) == expected
        assert not batch.prompt[row, batch.prompt_lengths[row] :].any()
        steps = prompt[1:, 1] - prompt[:-1, 1]  # consecutive frames, but for the seam
        assert int((steps != 1).sum()) <= choice.two[row]

        emotion = batch.emotion[row, : batch.emotion_lengths[row]]
        if choice.own_emotion[row]:
            torch.testing.assert_close(emotion, prompt)
        else:
            assert set(emotion[:, 0].tolist()) == {choice.emotion[row]}


def test_heads_begin_with_the_frequencies(batches: GPTBatches) -> None:
    counts = batches.code_counts()
    assert int(counts.sum()) == int((batches.length[batches.usable] + 1).sum())
    assert counts[batches.config.stop_mel_token] == len(batches.usable)
    assert int(batches.text_counts().sum()) == int((batches.text_length[batches.sentence[batches.usable]] + 1).sum())
    head = torch.nn.Linear(4, batches.config.number_mel_codes)
    train_gpt.begin_with_frequencies(head, counts)
    torch.testing.assert_close(head.bias.softmax(0), (counts + 1) / (counts + 1).sum())


def test_the_encoders_of_the_prompts_begin_later(root: Path, batches: GPTBatches) -> None:
    model = UnifiedVoice(batches.config)
    groups = train_gpt.parameter_groups(model)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    late = {id(p) for group in groups if group["begin"] > 0 for p in group["params"]}
    encoders = (model.conditioning_encoder, model.perceiver_encoder, model.emo_conditioning_encoder)
    encoders += (model.emo_perceiver_encoder, model.emovec_layer, model.emo_layer)
    assert late == {id(p) for encoder in encoders for p in encoder.parameters()}
    options = argparse.Namespace(out=root / "clock", minutes=1.0, smoke=True, resume=False)
    optimizer = torch.optim.AdamW(groups)
    loop = Loop("clock", options, {}, optimizer, smoke_steps=100)
    rates = [[group["lr"] for group in optimizer.param_groups] for _ in loop.steps()]
    for index, group in enumerate(groups):
        assert (rates[3][index] == 0) == (group["begin"] > 0)
        assert rates[-1][index] > 0
    assert max(map(max, rates)) == pytest.approx(train_gpt.PEAK_LR)
    subsampling = model.conditioning_encoder.embed.out[0].weight
    slowest = next(group["lr"] for group in groups if any(p is subsampling for p in group["params"]))
    assert slowest < train_gpt.ENCODERS_PEAK_LR < train_gpt.PEAK_LR


def test_positions_of_codes_and_text_begin_in_one_measure(batches: GPTBatches) -> None:
    model = UnifiedVoice(batches.config)
    train_gpt.initialise(model)
    codes, text = model.mel_pos_embedding.emb.weight, model.text_pos_embedding.emb.weight
    nearest = (text @ codes.T).argmax(1)
    within = torch.arange(len(text)) * train_gpt.CODES_PER_TEXT_ID < len(codes)
    expected = torch.arange(len(text)) * train_gpt.CODES_PER_TEXT_ID
    assert torch.equal(nearest[within], expected[within])


def test_a_worth_is_nothing_where_an_input_is_not_heard(batches: GPTBatches) -> None:
    torch.manual_seed(0)
    model = UnifiedVoice(batches.config).eval()
    for name, parameter in model.named_parameters():
        if name.startswith(("gpt.h.", "mel_head.")) and parameter.ndim == 2:
            torch.nn.init.normal_(parameter)
    for parameter in model.emo_layer.parameters():
        torch.nn.init.zeros_(parameter)
    figures = train_gpt.HeldOut.draw(batches, 16).score(model)
    assert figures["emotion_worth"] == pytest.approx(0, abs=1e-6)
    assert figures["emotion_worth_first"] == pytest.approx(0, abs=1e-6)
    assert figures["text_worth"] != pytest.approx(0, abs=1e-4)


def test_each_code_knows_which_text_it_speaks(batches: GPTBatches) -> None:
    batch = batches.gather(batches.choose(batches.usable[:6]))
    for spoken, codes, ids in zip(batch.spoken, batch.code_lengths.tolist(), batch.text_lengths.tolist(), strict=True):
        right = ((torch.arange(codes) + 0.5) / codes * (ids + 2)).floor().long().sub(1).clamp(0, ids - 1)
        assert (spoken[:codes] - right).abs().max() <= 1 + 2 * ids // codes
        assert (spoken[:codes] == right).float().mean() > 0.5
        assert bool((spoken[: codes - 1].diff() >= 0).all())


def test_attention_learns_where_the_speech_is(batches: GPTBatches) -> None:
    torch.manual_seed(0)
    model = UnifiedVoice(batches.config).train()
    guide = AttentionGuide(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch = batches.gather(batches.choose(batches.usable[:6]))
    losses = []
    for _ in range(80):
        train_gpt.logits_of(model, batch, batch.codes, True)
        loss = guide.loss(batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > 2 and losses[-1] < 0.7 * losses[0]


def test_targets_end_with_the_stop_code(batches: GPTBatches) -> None:
    batch = batches.gather(batches.choose(batches.usable[:6]))
    codes, text = train_gpt.targets_of(batch, batches.config)
    for row, length in enumerate(batch.code_lengths.tolist()):
        assert codes[row, :length].tolist() == batch.codes[row, :length].tolist()
        assert codes[row, length] == batches.config.stop_mel_token
        assert (codes[row, length + 1 :] == -100).all()
    assert (text >= 0).sum(1).tolist() == (batch.text_lengths + 1).tolist()


def test_noise_replaces_a_small_share(batches: GPTBatches) -> None:
    torch.manual_seed(0)
    codes = torch.zeros(200, 100, dtype=torch.long)
    noisy = train_gpt.with_noise(codes, CODES)
    assert 0.01 < float((noisy != codes).float().mean()) < train_gpt.CODE_NOISE
    assert int(noisy.max()) < CODES


def test_dropout_acts_in_training_only(root: Path) -> None:
    torch.manual_seed(0)
    model = UnifiedVoice(load_model_config(root / "config.yaml").gpt)
    x = torch.randn(1, 5, 16)
    plain = model.eval().gpt(x)
    train_gpt.add_dropout(model, 0.5)
    torch.testing.assert_close(model.eval().gpt(x), plain)
    assert not torch.allclose(model.train().gpt(x), plain)


def test_a_step_without_finite_gradients_is_left_out() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    train_gpt.take_step(optimizer, (weight * float("nan")).sum())
    assert weight.tolist() == [1.0, 1.0, 1.0]
    train_gpt.take_step(optimizer, weight.sum())
    assert (weight < 1).all()


def test_no_part_of_a_step_waits_for_the_device(batches: GPTBatches) -> None:
    model = UnifiedVoice(batches.config)
    train_gpt.add_dropout(model.train(), 0.1)
    optimizer = torch.optim.AdamW(train_gpt.parameter_groups(model), fused=True)
    step = train_gpt.TrainStep(model, optimizer, batches.config, AttentionGuide(model))
    batch = batches.gather(batches.choose(batches.usable[:6]))
    tensors = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with NoWaiting():
        losses = step(*tensors, batch.codes, decoding_positions=True)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def run_trainer(root: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    config = str(root / "config.yaml")
    command = ["train_gpt", "--data", str(root), "--out", str(root), "--config", config, "--smoke", *flags]
    monkeypatch.setattr(sys, "argv", command)
    train_gpt.main()
    log = logging.getLogger("training.gpt")
    while log.handlers:
        log.handlers.pop().close()


def test_from_data_to_weights_and_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_trainer(root, monkeypatch, "--speak", "1")
    weights = load_file(root / "gpt.safetensors")
    UnifiedVoice(load_model_config(root / "config.yaml").gpt).load_state_dict(weights, strict=True)
    assert all(torch.isfinite(value).all() for value in weights.values())
    told = load_file(root / "gpt_emotions.safetensors")["weight"]
    assert told.shape == (9, 16) and told[1:].norm(dim=1).min() > 0
    log = (root / "gpt.log").read_text()
    assert "held out" in log and "never_stop" in log
    before = torch.load(root / "gpt.pt", weights_only=True)
    run_trainer(root, monkeypatch, "--resume")
    after = torch.load(root / "gpt.pt", weights_only=True)
    assert after["step"] > before["step"] > 0
    key = "mel_head.bias"
    assert not torch.equal(after["parts"]["model"][key], before["parts"]["model"][key])
