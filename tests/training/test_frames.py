"""Crops and labels stay aligned, and the learners of the semantic networks do what they claim."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from indextts.audio import resample_22k_to_16k, semantic_features
from indextts.config import SemanticCodecConfig, W2VBertConfig
from indextts.models.semantic_codec import SemanticCodec, VectorQuantizer
from indextts.models.semantic_encoder import SemanticEncoder
from tests.training.conftest import FIRST_PHONE
from training.dataset import SpeechData
from training.extract_semantics import extract, quantize_rows
from training.frames import NUM_PHONES, CropSampler, FrameHeads, batches_by_length, weighted
from training.semantics import Semantics
from training.train_semantic_codec import CodebookLearner
from training.train_semantic_encoder import VoiceAdversary, mask_features


def test_labels_of_a_crop(toy_speech: Path) -> None:
    sampler = CropSampler(SpeechData(toy_speech, "cpu"), seed=0)
    crops = sampler.crops(torch.tensor([0, 5]), torch.tensor([0, 11025]), 22050)
    labels = crops.labels
    assert labels.valid.all() and labels.phones.shape == labels.log_f0.shape == labels.energy.shape
    inner = slice(2, -2)
    voiced = labels.voiced[:, inner]
    assert voiced.float().mean() > 0.9  # all but some frames where the loudness jumps
    assert labels.log_f0[:, inner][voiced].abs().max() < 0.02  # relative to the voice, both are at their mean
    # Phones and energy are aligned: the loudness of a phone in the middle of it follows its id.
    ids, energy = (labels.phones[0] - FIRST_PHONE).float(), labels.energy[0] * 10
    expected = 20 * torch.log10(ids)
    middle = [t for t in range(3, len(ids) - 3) if (ids[t - 1 : t + 2] == ids[t]).all()]
    difference = (energy - expected)[middle]
    assert len(middle) > 10 and (difference - difference.mean()).abs().max() < 1.0


def test_short_utterances_are_padded_and_marked(toy_speech: Path) -> None:
    crops = CropSampler(SpeechData(toy_speech, "cpu"), seed=0).crops(torch.tensor([0, 5]), 0, 44100)
    frames = crops.labels.valid.sum(1)
    _, mask = semantic_features(crops.wave, crops.num_samples)
    assert frames[0] < frames[1]
    assert (crops.labels.valid.sum(1) - mask.sum(1)).abs().max() <= 1  # the half-padded last one


def test_heads_can_learn_the_labels(toy_speech: Path) -> None:
    torch.manual_seed(0)
    crops = CropSampler(SpeechData(toy_speech, "cpu"), seed=0).draw(1.0, 8.0)
    labels = crops.labels
    heads = FrameHeads(NUM_PHONES + 3)
    code = F.one_hot(labels.phones, NUM_PHONES).float()
    hidden = torch.cat([code, labels.log_f0[..., None], labels.voiced[..., None], labels.energy[..., None]], -1)
    optimizer = torch.optim.Adam(heads.parameters(), 0.1)
    for _ in range(150):
        optimizer.zero_grad()
        weighted(heads.losses(hidden, labels)).backward()
        optimizer.step()
    figures = heads.metrics(hidden, labels)
    assert figures["phone_accuracy"] > 0.99 and figures["voicing_accuracy"] > 0.95
    assert figures["f0_semitones"] < 0.5 and figures["energy_db"] < 1.0


def test_adversary_reverses_only_what_reaches_the_encoder() -> None:
    torch.manual_seed(0)
    adversary, hidden = VoiceAdversary(4, 3), torch.randn(2, 5, 4, requires_grad=True)
    valid, voice = torch.ones(2, 5, dtype=torch.bool), torch.tensor([0, 2])
    grads = []
    for strength in torch.tensor([-1.0, 0.5]):  # minus one: the plain gradient
        loss = adversary.loss(hidden, valid, voice, strength)
        own, weight = torch.autograd.grad(loss, [hidden, next(adversary.parameters())])
        grads.append((loss, own, weight))
    torch.testing.assert_close(grads[1][0], grads[0][0])
    torch.testing.assert_close(grads[1][1], -0.5 * grads[0][1])
    torch.testing.assert_close(grads[1][2], grads[0][2])


def test_masking_hides_some_but_not_all() -> None:
    masked = mask_features(torch.ones(16, 100, 160), torch.Generator().manual_seed(0))
    share = (masked == 0).float().mean((1, 2))
    assert share.max() < 0.5 and share.mean() > 0.05


def test_codebook_finds_clusters_and_restarts_dead_codes() -> None:
    torch.manual_seed(0)
    centres = F.normalize(torch.randn(16, 4), dim=-1)
    points = centres.repeat(40, 1) + 0.01 * torch.randn(640, 4)
    quantizer = VectorQuantizer(8, 32, 4)
    learner = CodebookLearner(quantizer)
    learner.start(points)
    assert (centres @ quantizer.codebook.weight.T).amax(1).min() > 0.99

    moved = F.normalize(torch.randn(16, 4), dim=-1)
    for _ in range(300):
        batch = moved.repeat(8, 1) + 0.01 * torch.randn(128, 4)
        learner.update(batch, quantizer.encode(batch.T[None])[0], torch.ones(128, dtype=torch.bool))
    assert (moved @ quantizer.codebook.weight.T).amax(1).min() > 0.99
    assert 8 < learner.perplexity <= 32


def test_points_that_are_not_valid_leave_the_codebook_alone() -> None:
    torch.manual_seed(0)
    points, codes, valid = torch.randn(64, 4), torch.randint(0, 8, (64,)), torch.arange(64) % 3 > 0
    learners = [CodebookLearner(VectorQuantizer(8, 8, 4), dead_share=0.0) for _ in range(2)]
    learners[0].update(points, codes, valid)
    learners[1].update(points[valid], codes[valid], torch.ones_like(valid[valid]))
    torch.testing.assert_close(learners[0].sums, learners[1].sums)
    torch.testing.assert_close(learners[0].counts, learners[1].counts)


def test_dead_codes_restart_at_valid_points_only() -> None:
    torch.manual_seed(0)
    points, valid = F.normalize(torch.randn(20, 4), dim=-1), torch.arange(20) % 5 == 3
    quantizer = VectorQuantizer(8, 256, 4)
    learner = CodebookLearner(quantizer)
    learner.update(points, torch.zeros(20, dtype=torch.int64), valid)
    chosen = (quantizer.codebook.weight[1:] @ points.T).argmax(-1)
    assert set(chosen.tolist()) == {3, 8, 13, 18}
    torch.testing.assert_close(quantizer.codebook.weight[1:], points[chosen])


def test_every_second_is_drawn_with_the_same_probability(toy_speech: Path) -> None:
    data = SpeechData(toy_speech, "cpu")
    sampler, chosen = CropSampler(data, seed=0), []
    sampler.crops = lambda indices, start, num_samples: chosen.append((indices, start))  # type: ignore[method-assign, assignment, return-value]
    sampler.draw(0.5, 5000.0)
    indices, start = chosen[0]
    share = torch.bincount(indices, minlength=len(data)) / len(indices)
    torch.testing.assert_close(share, data.length_s / data.length_s.sum(), atol=0.015, rtol=0)
    spare = data.num_samples(indices) - 11025
    assert (start >= 0).all() and (start <= spare).all() and (start / spare).mean().sub(0.5).abs() < 0.02


def test_the_pitch_of_a_voice_is_its_mean(toy_speech: Path) -> None:
    sampler = CropSampler(SpeechData(toy_speech, "cpu"), seed=0)
    mean = sampler._f0_sum / sampler._f0_count
    torch.testing.assert_close(mean, torch.log2(torch.tensor([100.0, 200.0])), atol=0.02, rtol=0)


def test_batches_by_length_cover_everything_once() -> None:
    lengths = torch.tensor([5, 1, 9, 2, 2, 7, 30]) * 22050
    batches = list(batches_by_length(lengths, 10.0))
    assert sorted(torch.cat([indices for indices, _ in batches]).tolist()) == list(range(7))
    in_order = [n for _, num_samples in batches for n in num_samples]
    assert in_order == sorted(lengths.tolist(), reverse=True)
    for indices, num_samples in batches:
        assert lengths[indices].tolist() == num_samples
        assert len(indices) == 1 or num_samples[0] * len(indices) <= 10 * 22050
    assert len(batches) < 6


def test_rows_are_quantised_without_their_padding() -> None:
    torch.manual_seed(0)
    codec = SemanticCodec(SemanticCodecConfig(16, 16, 4, 12, 16, 2)).eval()
    embeddings, lengths = torch.randn(5, 9, 16), [9, 7, 7, 7, 2]
    with torch.no_grad():
        codes = quantize_rows(codec, embeddings, lengths)
        for row, length in enumerate(lengths):
            alone = codec.quantize(embeddings[row : row + 1, :length])[0][0]
            assert torch.equal(codes[row, :length], alone) and not codes[row, length:].any()


def test_extraction_gives_each_utterance_what_it_would_get_alone(toy_speech: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = W2VBertConfig(
        hidden_size=16, num_attention_heads=2, intermediate_size=24, conv_depthwise_kernel_size=5, output_layer=2
    )
    encoder = SemanticEncoder(small).eval()
    codec = SemanticCodec(SemanticCodecConfig(16, 16, 4, 12, 16, 2)).eval()
    data = SpeechData(toy_speech, "cpu")
    extract(data, encoder, codec, tmp_path, batch_s=6.0, seed=0)
    semantics = Semantics(tmp_path, "cpu")
    semantics.check(data)
    for index in range(len(data)):
        with torch.no_grad():
            features = semantic_features(resample_22k_to_16k(data.wave([index])))
            embedding = encoder.normalize(encoder(*features))
            want = codec.quantize(embedding)[0]
        codes, length = semantics.codes([index])
        assert torch.equal(codes, want) and length.item() == features[0].shape[1]
        clean, _ = semantics.embeddings([index], augmented=False)
        torch.testing.assert_close(clean, embedding, atol=5e-3, rtol=1e-3)
        augmented, _ = semantics.embeddings([index], augmented=True)
        assert augmented.isfinite().all() and augmented.shape == clean.shape
