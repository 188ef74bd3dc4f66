"""Text front end against the golden cases: every section of text_cases.json."""

from __future__ import annotations

import re
from typing import Any

import pytest

from indextts.text.glossary import Glossary
from indextts.text.normalizer import TextNormalizer, is_chinese, is_email
from indextts.text.pinyin import PINYIN, correct_pinyin
from indextts.text.segmenter import split_segments
from indextts.text.tokenizer import TextTokenizer, join_cjk, split_cjk


def identity(text: str) -> str:
    return text


@pytest.fixture(scope="module")
def cases(golden: Any) -> dict[str, Any]:
    return golden.json("text_cases.json")


@pytest.fixture(scope="module")
def normalizers() -> dict[str, TextNormalizer]:
    return {"identity": TextNormalizer(None, identity, identity), "wetext": TextNormalizer()}


def test_normalizer_rules_around_identity_engines(cases: dict[str, Any], normalizers: dict[str, Any]) -> None:
    assert cases["normalize_identity"]
    for case in cases["normalize_identity"]:
        assert is_chinese(case["text"]) == case["chinese_path"], case["text"]
        assert normalizers["identity"](case["text"]) == case["out"]


def test_normalizer_with_its_engines(cases: dict[str, Any], normalizers: dict[str, Any]) -> None:
    strict = [case for case in cases["normalize_wetext"] if case["strict"]]
    assert strict
    for case in strict:
        assert normalizers["wetext"](case["text"]) == case["out"]


def test_email(cases: dict[str, Any]) -> None:
    for case in cases["match_email"]:
        assert is_email(case["text"]) == case["out"], case["text"]


def test_pinyin(cases: dict[str, Any]) -> None:
    for case in cases["correct_pinyin"]:
        assert correct_pinyin(case["text"]) == case["out"]
    for case in cases["pinyin_matches"]:
        assert PINYIN.findall(case["text"]) == case["matches"]


def test_glossary(cases: dict[str, Any]) -> None:
    glossary = Glossary(cases["glossary"]["terms"])
    normalizer = TextNormalizer(glossary, identity, identity)
    for case in cases["glossary"]["cases"]:
        assert glossary.apply(case["text"], "zh") == case["zh"]
        assert glossary.apply(case["text"], "en") == case["en"]
        assert normalizer(case["text"]) == case["normalize_identity"]


def test_cjk_split(cases: dict[str, Any]) -> None:
    for case in cases["cjk_split"]:
        assert split_cjk(case["text"]) == case["out"]
        assert split_cjk(case["text"], upper=False) == case["out_no_upper"]


def test_tokenize(golden: Any, cases: dict[str, Any], normalizers: dict[str, Any]) -> None:
    for case in cases["tokenize"]:
        tokenizer = TextTokenizer(golden.dir / cases["bpe_model"], normalizers[case["normalizer"]])
        assert tokenizer.vocabulary_size == cases["vocab_size"]
        assert tokenizer.unknown_id == cases["special"]["unk"]
        assert tokenizer.tokenize(case["text"]) == case["pieces"], case["text"]
        assert tokenizer.encode(case["text"]) == case["ids"], case["text"]


def test_segments(cases: dict[str, Any]) -> None:
    for case in cases["segments"]:
        got = split_segments(case["tokens"], case["max_text_tokens_per_segment"], case["quick_streaming_tokens"])
        assert got == case["segments"]


def test_detokenize_without_the_lost_latin_phrases(cases: dict[str, Any]) -> None:
    """The reference leaves a placeholder ``<sent_N>`` where a Latin phrase was; ours is the phrase itself."""
    for case in cases["detokenize"]:
        phrases = re.findall(r"[A-Za-z]+(?: [A-Za-z]+)*", case["text"])
        for key, lower in (("out", False), ("lower", True)):
            want = re.sub(r"<sent_(\d+)>", lambda m, p=phrases: p[int(m[1])], case[key])
            assert join_cjk(case["text"], lower) == (want.lower() if lower else want)
