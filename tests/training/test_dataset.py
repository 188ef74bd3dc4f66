import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training.dataset import SAMPLE_RATE_HZ, SpeechData, sounds

VOICES = [{"name": f"v{i}", "heldout": i >= 4} for i in range(6)]
SENTENCES = [
    {"text": f"Sentence {i}.", "language": "en", "phonemes": "ab", "heldout": i >= 8} for i in range(12)
]


def write_shard(
    root: Path, number: int, rows: list[tuple[int, int]], complete: bool = True
) -> list[np.ndarray]:
    """Writes utterances of (voice, sentence) with random samples; phones 43, 44, … of 4 frames each."""
    generator = np.random.default_rng(number)
    waves = [generator.integers(-30000, 30000, 551 * 4 * (2 + i % 3)).astype("<i2") for i in range(len(rows))]
    lengths = np.array([len(w) for w in waves], np.int64)
    phones = [np.arange(43, 45 + i % 3, dtype=np.int16) for i in range(len(rows))]
    stem = root / f"shard_{number:05d}"
    np.concatenate(waves).tofile(stem.with_suffix(".pcm"))
    np.savez(
        stem.with_suffix(".npz"),
        offset=np.cumsum(lengths) - lengths,
        length=lengths,
        voice=np.array([v for v, _ in rows], np.int32),
        sentence=np.array([s for _, s in rows], np.int32),
        language=np.zeros(len(rows), np.int8),
        style=np.arange(len(rows), dtype=np.int8) % 9,
        intensity=np.full(len(rows), 0.5, np.float32),
        phone_ids=np.concatenate(phones),
        phone_frames=np.full(sum(map(len, phones)), 4, np.int16),
        phone_offset=np.cumsum([0, *map(len, phones)]).astype(np.int64),
    )
    if complete:
        stem.with_suffix(".json").write_text("{}")
    return waves


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "voices.json").write_text(json.dumps(VOICES))
    (tmp_path / "sentences.json").write_text(json.dumps(SENTENCES))
    return tmp_path


def test_split_keeps_heldout_voices_and_sentences_out_of_train(root: Path) -> None:
    write_shard(root, 0, [(voice, sentence) for voice in range(6) for sentence in range(12)])
    train, heldout = SpeechData(root, "cpu"), SpeechData(root, "cpu", "heldout")
    assert set(train.voice.tolist()) == {0, 1, 2, 3}
    assert set(train.sentence.tolist()) == set(range(8))
    assert set(heldout.voice.tolist()) == {4, 5}
    assert set(heldout.sentence.tolist()) == {8, 9, 10, 11}


def test_wave_gives_the_samples_that_were_written(root: Path) -> None:
    waves = write_shard(root, 0, [(4, 0), (0, 1), (1, 2), (2, 3)])  # the first row is not in the train split
    data = SpeechData(root, "cpu")
    whole = data.wave([2, 0])
    assert whole.shape == (2, max(len(waves[3]), len(waves[1])))
    torch.testing.assert_close(whole[1, : len(waves[1])], torch.from_numpy(waves[1]).float() / 32768)
    assert not whole[0, len(waves[3]) :].any()
    assert data.num_samples([0, 1, 2]).tolist() == [len(w) for w in waves[1:]]
    excerpt = data.wave(torch.tensor([1, 2]), torch.tensor([100, -50]), 300)
    torch.testing.assert_close(excerpt[0], torch.from_numpy(waves[2][100:400]).float() / 32768)
    assert not excerpt[1, :50].any()
    torch.testing.assert_close(excerpt[1, 50:], torch.from_numpy(waves[3][:250]).float() / 32768)


def test_phones_are_those_at_frame_centres(root: Path) -> None:
    write_shard(root, 0, [(0, 0), (1, 1)])
    data = SpeechData(root, "cpu")
    # Four frames of 25 ms are five frames of 20 ms.
    assert data.phones_at([0, 1], 50, 17).tolist() == [
        [43] * 5 + [44] * 5 + [0] * 7,
        [43] * 5 + [44] * 5 + [45] * 5 + [0] * 2,
    ]
    late = data.phones_at([0], 50, 4, start_samples=SAMPLE_RATE_HZ // 10 - 441)
    assert late.tolist() == [[43, 44, 44, 44]]


def test_marks_take_the_sound_beside_them() -> None:
    vocabulary = {" ": 16, ",": 3, ".": 4, "ˈ": 156, "ˌ": 157, "ː": 158, "↓": 169, "↘": 173, "ʰ": 162}

    def ids(symbols: str) -> np.ndarray:
        return np.array([0, *(vocabulary.get(s, 1000 + ord(s)) for s in symbols), 0])

    def heard(symbols: str) -> str:
        names = {0: "_"} | {id: symbol for symbol, id in vocabulary.items()}
        return "".join(names.get(id) or chr(id - 1000) for id in sounds(ids(symbols)).tolist())

    assert heard("ðə kˈæt.") == "_ðəəkææt__"
    assert heard("tʰa↘ŋ xau↓, wo") == "_tʰaaŋŋxauu__wo_"
    assert heard("aː ˌb") == "_aaabb_"


def test_refresh_reads_only_complete_and_new_shards(root: Path) -> None:
    write_shard(root, 0, [(0, 0), (1, 1)])
    waves = write_shard(root, 1, [(1, 3), (2, 4), (3, 5)], complete=False)
    data = SpeechData(root, "cpu")
    assert len(data) == 2
    assert data.refresh() == 0
    (root / "shard_00001.json").write_text("{}")
    assert data.refresh() == 3
    torch.testing.assert_close(data.wave([4])[0], torch.from_numpy(waves[2]).float() / 32768)
    assert data.by_voice(1).tolist() == [1, 2]
    assert data.text(4) == "Sentence 5."


def test_pairs_share_the_voice_and_differ_in_the_sentence(root: Path) -> None:
    write_shard(root, 0, [(0, 0), (0, 0), (0, 1), (1, 2), (1, 3), (1, 4), (2, 5)])
    data = SpeechData(root, "cpu")
    prompt, target = data.same_voice_pairs(torch.Generator().manual_seed(1), 500)
    assert prompt.shape == target.shape == (500,)
    assert torch.equal(data.voice[prompt], data.voice[target])
    assert bool((data.sentence[prompt] != data.sentence[target]).all())
    assert set(target.tolist()) == {0, 1, 2, 3, 4, 5}  # the only utterance of voice 2 has no partner


def test_pairs_without_partners_are_an_error(root: Path) -> None:
    write_shard(root, 0, [(0, 0), (1, 1)])
    with pytest.raises(ValueError, match="no voice with two utterances"):
        SpeechData(root, "cpu").same_voice_pairs(torch.Generator(), 4)
