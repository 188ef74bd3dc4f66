"""The plan of the training data; the teacher itself is not needed."""

import json
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest
import torch

from indextts.emotion import EMOTIONS
from training.dataset import SAMPLE_RATE_HZ, SpeechData
from training.generate import Plan, spoken_part, write_shard
from training.make_prompts import prompt_texts
from training.styles import NEUTRAL_SHARE, STYLES, draw_prosody, draw_style
from training.templates import english_templates, mandarin_templates, mixed_templates, ordinal, word_lists
from training.texts import NearDuplicates, Sentence, join, split
from training.voices import (
    HELDOUT_STOCK,
    NUM_SAMPLED,
    NUM_SAMPLED_HELDOUT,
    ROW_STEP,
    TIMBRE,
    WIDE_SIGMA,
    VoiceBank,
    pack_voices,
)

SENTENCES = [
    {"text": f"s{i}", "language": ("en", "zh")[i % 10 == 0], "heldout": i % 4 == 0, "phonemes": "ab",
     "kind": "hsk" if i % 10 == 0 else ("example", "definition", "joined", "word")[i // 10 % 4]}
    for i in range(400)
]  # fmt: skip
VOICES = [
    {"name": str(i), "heldout": i < 3, "languages": [["en"], ["zh"], ["en", "zh"]][i % 3], "stock": i % 2 == 0}
    for i in range(12)
]


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("voices"), np.random.default_rng(0)
    for name in [*HELDOUT_STOCK, "af_one", "am_two", "zf_three", "bf_four", "pf_dora"]:
        generator.standard_normal((510, 1, 256)).astype("<f4").tofile(folder / f"{name}.bin")
    pack_voices(folder, folder / "voices.npz")
    return folder


def test_plan_keeps_the_split_and_the_languages() -> None:
    plan = Plan(SENTENCES, VOICES, seed=3, shard_size=50)
    utterances = list(chain.from_iterable(plan.shard(i) for i in range(12)))
    for u in utterances:
        assert SENTENCES[u.sentence]["heldout"] == VOICES[u.voice]["heldout"]
        assert SENTENCES[u.sentence]["language"] in VOICES[u.voice]["languages"]
    assert {u.voice for u in utterances[:42]} == {0, 1, 2}  # held-out voices come first, with 14 utterances each
    assert {u.voice for u in utterances[42:]} == set(range(3, 12))


def test_plan_depends_on_the_seed_alone() -> None:
    one, two = (Plan(SENTENCES, VOICES, seed=3, shard_size=40) for _ in range(2))
    assert two.shard(3) == one.shard(3)  # whichever shards were asked for before
    assert Plan(SENTENCES, VOICES, seed=4, shard_size=40).shard(3) != one.shard(3)


def test_every_reading_of_a_voice_in_a_round_has_another_sentence() -> None:
    utterances = Plan(SENTENCES, VOICES, seed=3, shard_size=42).shard(0)
    for voice in range(3):
        sentences = [u.sentence for u in utterances if u.voice == voice]
        assert len(sentences) == len(set(sentences)) == 14


def test_written_shards_read_back(tmp_path: Path) -> None:
    (tmp_path / "sentences.json").write_text(json.dumps(SENTENCES))
    (tmp_path / "voices.json").write_text(json.dumps(VOICES))
    utterances = Plan(SENTENCES, VOICES, seed=3, shard_size=60).shard(0)
    waves = [np.full(5513 + i, i, np.int16) for i in range(60)]
    read = [(wave, [0, 77, 0], np.array([1, 8, 1])) for wave in waves]
    seconds = write_shard(tmp_path / "shard_00000", utterances, SENTENCES, read)
    assert seconds == pytest.approx(sum(map(len, waves)) / SAMPLE_RATE_HZ)
    data = SpeechData(tmp_path, "cpu", "heldout")
    assert len(data) == 42
    torch.testing.assert_close(data.wave([41])[0], torch.full((5513 + 41,), 41 / 32768))
    assert data.phones_at([0], 40.0, 11).tolist() == [[0] + [77] * 8 + [0] * 2]
    assert data.style.tolist() == [u.style for u in utterances[:42]]


def test_spoken_part_leaves_out_the_silence() -> None:
    power = np.array([0, 1e-9, 0.02, 0.04, 1e-9, 0.03, 1e-8, 0])
    first, last, level = spoken_part(power)
    assert (first, last) == (2, 6)
    assert level == pytest.approx(0.03**0.5)


def test_styles_are_neutral_at_no_intensity_and_in_some_of_the_draws() -> None:
    generator = np.random.default_rng(0)
    draws = [draw_style(generator) for _ in range(4000)]
    assert len(STYLES) == 9
    assert {style for style, _ in draws} == set(range(9))
    assert sum(style == 0 for style, _ in draws) / 4000 == pytest.approx(NEUTRAL_SHARE, abs=0.03)
    assert all(style.at(0.0) == STYLES["neutral"] and style.at(1.0) == style for style in STYLES.values())
    drawn = [draw_prosody(1, 1.0, generator).f0_scale for _ in range(200)]
    assert np.mean(drawn) == pytest.approx(STYLES["happy"].f0_scale, rel=0.01)


def test_sampled_voices_spread_like_the_training_stock(voices: Path) -> None:
    bank = VoiceBank(voices / "voices.npz", seed=1)
    names = [v.name for v in bank.voices]
    assert "pf_dora" not in names
    assert {v.name for v in bank.voices if v.heldout and v.stock} == set(HELDOUT_STOCK)
    train = torch.stack([bank.style(i, 100) for i, v in enumerate(bank.voices) if v.stock and not v.heldout])
    own = [i for i, v in enumerate(bank.voices) if not v.stock and not v.mandarin_timbre]
    sampled = torch.stack([bank.style(i, 100) for i in own])
    sampled[NUM_SAMPLED_HELDOUT:] = train.mean(0) + (sampled[NUM_SAMPLED_HELDOUT:] - train.mean(0)) / WIDE_SIGMA
    torch.testing.assert_close(sampled.std(0).mean(), train.std(0).mean(), rtol=0.05, atol=0)
    torch.testing.assert_close(sampled.mean(0), train.mean(0), rtol=0, atol=0.15)
    rows = bank.table()
    places = torch.tensor([row["place"] for row in rows])
    numbers = [i for i in (0, 1, 2, *own[5:500:100]) if rows[i]["name"] not in HELDOUT_STOCK]
    assert len({rows[i]["stock"] for i in numbers}) == 2 and len(numbers) > 3
    styles = torch.stack([torch.cat([bank.style(i, n + 1) for n in range(0, 510, ROW_STEP)]) for i in numbers])
    ratio = torch.pdist(styles) / torch.pdist(places[numbers])
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-2, atol=0)
    again = VoiceBank(voices / "voices.npz", seed=1)
    assert torch.equal(again.style(500, 30), bank.style(500, 30))


def test_drawn_voices_read_mandarin_like_the_stock_voices_that_can(voices: Path) -> None:
    bank = VoiceBank(voices / "voices.npz", seed=1)
    can = bank.style(next(i for i, v in enumerate(bank.voices) if v.name == "zf_three"), 40, "zh")
    learns = next(i for i, v in enumerate(bank.voices) if v.mandarin_timbre)
    heldout = next(i for i, v in enumerate(bank.voices) if v.heldout and not v.stock)
    assert bank.voices[learns].languages == bank.voices[heldout].languages == ("en", "zh")
    assert not bank.voices[heldout].mandarin_timbre
    for voice in (learns, heldout):
        own, mandarin = bank.style(voice, 40), bank.style(voice, 40, "zh")
        assert torch.equal(mandarin[:TIMBRE], own[:TIMBRE])  # one speaker in both languages
        torch.testing.assert_close(mandarin[TIMBRE:], can[TIMBRE:])
        assert not torch.equal(own[TIMBRE:], can[TIMBRE:])
    assert sum("zh" in v.languages for v in bank.voices if not v.stock and not v.heldout) == NUM_SAMPLED / 2


def test_stock_style_is_the_row_of_the_pack(voices: Path) -> None:
    bank = VoiceBank(voices / "voices.npz")
    pack = np.fromfile(voices / "af_one.bin", "<f4").reshape(510, 256)
    index = next(i for i, v in enumerate(bank.voices) if v.name == "af_one")
    expected = torch.from_numpy(pack[7 // ROW_STEP * ROW_STEP]).half().float()
    torch.testing.assert_close(bank.style(index, 8), expected)
    assert bank.style(index, 510).shape == bank.style(index, 100_000).shape == (256,)


def test_templates_are_many_and_filled() -> None:
    english, mandarin, mixed = english_templates(1), mandarin_templates(1), mixed_templates(1)
    assert len(set(english)) == len(english) > 1500
    assert len(set(mandarin)) == len(mandarin) > 250
    assert len(set(mixed)) == len(mixed) > 1000
    assert not any(set("{}|\n") & set(text) for text in [*english, *mandarin, *mixed])
    lists = word_lists(["苹果", "电脑", "雨伞", "自行车"], 20, seed=1)
    assert len(lists) == 20 and all(2 <= len(text.rstrip("。").split("，")) <= 4 for text in lists)
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd"]
    )


def test_evaluation_sentences_have_no_near_duplicates_in_train() -> None:
    things = product(("red", "small", "tall", "slow"), ("dog", "ship", "cart"), ("mill", "port", "inn"))
    rows = [Sentence(f"The {a} {b} was seen near the old {c}.", "en", "example", "ab") for a, b, c in things]
    words = ["".join(letters) for letters in product("abcdefgh", repeat=3)]
    rows += [Sentence(f"{word}x {word}y {word}z.", "en", "definition", "ab") for word in words]
    kept = split(rows, seed=1)
    chosen = [s for s in kept if s.eval]
    assert chosen and all(s.heldout for s in chosen)
    near = NearDuplicates(s.text for s in chosen)
    assert not any(s.text in near for s in kept if not s.eval)
    assert 5 < sum(s.heldout and not s.eval for s in kept) < 50


def test_chinese_texts_near_to_an_evaluation_sentence_are_found() -> None:
    near = NearDuplicates(["他把所有的积蓄都捐给了学校。"])
    assert "听说他把所有的积蓄都存了起来。" in near
    assert "他把书捐给了学校。" not in near
    assert "我们有九百个学生。" not in near


def test_in_every_style_each_feature_differs_from_calm() -> None:
    calm = STYLES["calm"]
    for name in EMOTIONS[:-1]:
        style = STYLES[name]
        for feature in ("f0_scale", "f0_range", "speed"):
            assert abs(np.log(getattr(style, feature) / getattr(calm, feature))) > 0.05, (name, feature)
        assert abs(style.level_db - calm.level_db) >= 1.0, name


def test_joined_sentences_stay_on_their_side_of_the_split() -> None:
    rows = [Sentence(f"x{i}.", "en", "example", "a" * 30, heldout=i % 5 == 0) for i in range(100)]
    side = {s.text: s.heldout for s in rows}
    joined = list(join(rows, "en", 200, seed=2))
    assert {s.heldout for s in joined} == {True, False}
    for sentence in joined:
        parts = sentence.text.split()
        assert len(parts) > 1 and all(side[part] == sentence.heldout for part in parts)
        assert len(sentence.phonemes) <= 230


def test_prompts_come_back_to_sentences_that_were_passed_over() -> None:
    def sentence(number: int, symbols: int, **other) -> dict:
        row = {"text": f"{number} " + "word " * 8, "phonemes": "x" * symbols, "heldout": True, "language": "en"}
        return row | {"kind": "example"} | other

    rows = [sentence(1, 100), sentence(2, 100), sentence(3, 40, heldout=False), sentence(4, 40, kind="word")]
    rows += [sentence(5, 40), sentence(6, 40)]
    texts = prompt_texts(rows, 2)
    assert [[word for word in text.split() if word != "word"] for text, _ in texts] == [["1", "5"], ["2", "6"]]
    with pytest.raises(ValueError, match="only 2 of 3 prompts"):
        prompt_texts(rows, 3)
