"""The vocabulary of the bundled model covers whatever the front end hands it."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from pypinyin import pinyin_dict
from pypinyin.contrib.tone_convert import to_tone3

from indextts.config_file import load_model_config
from indextts.text.normalizer import TextNormalizer
from indextts.text.phonemes import to_phonemes
from indextts.text.pinyin import correct_pinyin, to_pinyin
from indextts.text.tokenizer import TextTokenizer

NANO = Path(__file__).parents[2] / "checkpoints" / "nano"


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    config = load_model_config(NANO / "config.yaml")
    return TextTokenizer(NANO / config.bpe_model, TextNormalizer(), **vars(config.text))


def test_size_and_special_pieces(tokenizer: TextTokenizer) -> None:
    config = load_model_config(NANO / "config.yaml")
    assert tokenizer.vocabulary_size == config.gpt.number_text_tokens
    assert tokenizer.ids(["<s>", "</s>", "<unk>"]) == [config.gpt.start_text_token, config.gpt.stop_text_token, 2]


def test_every_reading_of_every_character_is_covered(tokenizer: TextTokenizer) -> None:
    readings = {reading for entry in pinyin_dict.pinyin_dict.values() for reading in entry.split(",")}
    syllables = {to_tone3(reading, neutral_tone_with_five=True) for reading in readings}
    assert len(syllables) > 1200
    for syllable in sorted(syllables):
        pieces = tokenizer.tokenize(syllable)
        assert tokenizer.unknown_id not in tokenizer.ids(pieces), (syllable, pieces)


@pytest.mark.parametrize("initial", [*"BPMFDTNLGKHJQXZCSRYW", "ZH", "CH", "SH"])
@pytest.mark.parametrize("final", ["A1", "I2", "ENG3", "ONG4", "U5"])
def test_a_syllable_is_an_initial_and_a_final(tokenizer: TextTokenizer, initial: str, final: str) -> None:
    want = correct_pinyin(initial + final)
    marked = ["▁", initial] if len(initial) > 1 else ["▁" + initial]
    assert tokenizer.tokenize(initial + final) == [*marked, want.removeprefix(initial)]


def test_every_printable_character_is_covered(tokenizer: TextTokenizer) -> None:
    for character in set(string.printable) - set(string.whitespace):
        text = to_pinyin(f"a {character} b{character}").upper()
        pieces = tokenizer._vocabulary.encode(text, out_type=str)
        assert tokenizer.unknown_id not in tokenizer.ids(pieces), character


@pytest.mark.parametrize(
    "text",
    [
        'On May 4th, 2021 she paid $25.50 (cash) at 10:30 — "why?" he asked…',
        "2024年3月15日，温度-5°C，涨了3%；他说：“好的！”GPT-4o真行。",
        "Café naïve façade, e-mail joe@site.org & 3/4 of [it]!",
    ],
)
def test_whole_texts_are_covered_and_come_back(tokenizer: TextTokenizer, text: str) -> None:
    pieces = tokenizer.tokenize(text)
    assert tokenizer.unknown_id not in tokenizer.ids(pieces)
    assert "".join(pieces).replace("▁", " ").strip() == to_phonemes(to_pinyin(tokenizer.normalizer(text)))


def test_punctuation_stands_alone(tokenizer: TextTokenizer) -> None:
    pieces = tokenizer.tokenize("Well, don't on-time... 好，是吗？No!")
    # What stands inside a word has no sound of its own.
    assert [p for p in pieces if p.strip("▁ˈˌ") and not any(c.isalnum() for c in p)] == [",", "...", ",", "?", "!"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("今天是2024年3月15日。", "JIN1 TIAN1 SHI4 ER4 LING2 ER4 SI4 NIAN2 SAN1 YUE4 SHI2 WU3 RI4."),
        ("价格是$25.99。", "JIA4 GE2 SHI4 ER4 SHI2 WU3 DIAN3 JIU3 JIU3 MEI3 YUAN2."),
        ("现在是下午3:45。", "XIAN4 ZAI4 SHI4 XIA4 WU3 SAN1 DIAN3 SI4 SHI2 WU3 FEN1."),
        ("GDP增长了6.5%。", "GDP ZENG1 ZHANG3 LE5 BAI3 FEN1 ZHI1 LIU4 DIAN3 WU3."),
        ("他zhong4视CHONG2新开始。", "TA1 ZHONG4 SHI4 CHONG2 XIN1 KAI1 SHI3."),
        ("DA4 JIA1好，我叫Peter。", "DA4 JIA1 HAO3, WO3 JIAO4 Peter."),
    ],
)
def test_mandarin_is_read_with_its_numbers_dates_money_and_pinyin(
    tokenizer: TextTokenizer, text: str, words: str
) -> None:
    pieces, written = tokenizer.read(text)
    assert " ".join(written) == words
    assert tokenizer.unknown_id not in tokenizer.ids(pieces)


def test_two_languages_stand_in_one_sentence(tokenizer: TextTokenizer) -> None:
    pieces = tokenizer.tokenize("我用iPhone给Tom打电话。")
    spoken = "".join(pieces).replace("▁", " ")
    assert spoken.split() == ["WO3", "YONG4", *to_phonemes("iPhone").split(), "GEI3", "tˈɑm", "DA3", "DIAN4", "HUA4."]
    assert tokenizer.tokenize("DA4 JIA1好") == tokenizer.tokenize("大家好")
