"""Texts that nobody would write, through normaliser, tokeniser and segmenter with the bundled vocabulary."""

from __future__ import annotations

import logging
import resource
import sys
import time

import pytest
from hypothesis import strategies as st

from indextts.config_file import load_model_config
from indextts.errors import IndexTTSError, TextError
from indextts.resources import NANO_DIR
from indextts.stages.text import TextStage
from indextts.text.limits import MAX_TEXT_CHARACTERS
from indextts.text.normalizer import TextNormalizer
from indextts.text.tokenizer import TextTokenizer
from tests.hostile.sizes import Try, quick_and_slow

logger = logging.getLogger(__name__)

MAX_TOKENS = 120
MAX_SECONDS_PER_1000_CHARACTERS = 10
MAX_GROWTH_MIB = 400

FRAGMENTS = [
    "Hello there. ", "今天是2024年3月15日，", "ma3 que1 ", "nǐ hǎo", "ＡＢＣ１２３", "٣٫١٤ ", "שלום עולם ", "مرحبا ",
    "\u202eevil\u202c",
    "e\u0301" * 9, "Z" + "\u0335\u0336\u0337" * 12, "👩\u200d👩\u200d👧\u200d👦", "🇩🇪🇫", "☺\ufe0f", "\U0001f3fd",
    "<speak><prosody rate='x-slow'>a</prosody></speak>", "<script>alert(1)</script>", "&nbsp;&#0;&lt;", "<!--", "]]>",
    "<a|b>", "<|>", "<H>", "<n_a>", "<pinyin_a>", "PRONPLACEHOLDERaPRONPLACEHOLDER", "<s>", "</s>", "<unk>", "▁",
    "\x00", "\x07\x1b[31m", "\r\n", "\t", "\u2028\u2029", "\ufeff", "\u200b", "\xad", "\ufffe", "\U0010ffff",
    "\ud800", "\udfff",
    "...", "!!!???", "-" * 9, "''\"\"", "—…·", "$", "€1,000.50", "1/0", "-0", "1e309", "9" * 40, "0x7f",
    "12:60:61", "2024-99-99",
    "a@b.c", "http://a.b/c?d=%00", "../../etc/passwd", "C:\\nul", "'; DROP TABLE--", "${jndi:x}", "{{7*7}}",
    "%s%n", "\\\"\\\\",
    "GPT-4o-", "x-" * 9, "阿-里·巴—巴", "王·", "の", "한국어", "ไทย", "𠀀", "㍿", "½²", "№", "™", "ﷺ", "ß", "İ", "ǅ",
]  # fmt: skip
ANY_CHARACTER = st.characters(exclude_categories=())  # lone surrogates, too
PIECES = st.one_of(
    st.sampled_from(FRAGMENTS),
    st.text(ANY_CHARACTER, max_size=40),
    st.text("0123456789.,:/-+%$ ", max_size=40),
    st.text("aAzZ 5-'\".?!\n", max_size=40),
    st.builds(lambda piece, times: piece * times, st.sampled_from(FRAGMENTS), st.integers(2, 30)),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)

LONG = 1_000_000
CORPUS = {
    "empty": "", "spaces": "   \n\t", "nul": "\0", "surrogate": "Hello \ud83d there", "two halves": "\udc00\ud800",
    "only punctuation": "?!.,;:-…'\"()[]{}" * 20, "only emoji": "😀" * 500, "only RTL marks": "\u202e\u202d\u200f" * 99,
    "one MB of a": "a" * LONG, "one MB of digits": "1" * LONG, "one MB of Chinese": "好" * LONG,
    "one MB of <": "<" * LONG,
    "one MB of sentences": "All work and no play. " * (LONG // 22), "one MB of new lines": "\n" * LONG + "a",
    "one MB of surrogates": "\ud800" * LONG, "one MB of annotations": "<a|b>" * (LONG // 5),
    "annotations": "".join(f"<{i}|b>" for i in range(500)), "hyphens": "a-" * 1000, "pinyin": "ma1 que2 " * 400,
    "combining": "a" + "\u0301" * 3000, "no place to cut": "x" * 4000, "digits": "7" * 3000,
    "own marks": "<n_a><pinyin_a>王-五<H>-",
    "SSML": "<speak version='1.0'><p>Hi <break time='9999h'/> there</p></speak>",
    "HTML": "<img src=x onerror=alert(1)>" * 20,
}  # fmt: skip


@pytest.fixture(scope="module", params=["letters", "phonemes"])
def stage(request: pytest.FixtureRequest) -> TextStage:
    config = load_model_config(NANO_DIR / "config.yaml")
    tokenizer = TextTokenizer(NANO_DIR / config.bpe_model, TextNormalizer(), "pinyin", request.param)
    stage = TextStage(tokenizer, config.gpt.max_text_tokens)
    stage("Hello there 5. Zyxwv."), stage("你好5。")  # grammars and lexicon are loaded
    return stage


def outcome(stage: TextStage, text: str) -> str:
    """Check that ``text`` gives valid segments or a clear error, in time; says which."""
    started = time.process_time()
    try:
        segments = stage(text, MAX_TOKENS)
    except IndexTTSError as error:
        assert 10 < len(str(error)) < 700
        str(error).encode("utf-8")  # can be printed and logged
        result = type(error).__name__
    else:
        assert segments and [segment.index for segment in segments] == list(range(len(segments)))
        for segment in segments:
            assert 1 <= segment.token_count <= MAX_TOKENS + 1  # a closing quote may come on top
            assert all(0 <= id < stage.tokenizer.vocabulary_size for id in segment.token_ids)
        result = "segments"
    thousands = max(1.0, min(len(text), MAX_TEXT_CHARACTERS) / 1000)
    assert time.process_time() - started < MAX_SECONDS_PER_1000_CHARACTERS * thousands
    return result


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@quick_and_slow(150, 10_000)
def test_any_text(stage: TextStage, attempt: Try) -> None:
    logging.disable(logging.WARNING)  # each odd character is named there
    before_mib, started = peak_mib(), time.process_time()
    try:
        counts = attempt(TEXTS, lambda text: outcome(stage, text))
    finally:
        logging.disable(logging.NOTSET)
    growth_mib = peak_mib() - before_mib
    seconds = time.process_time() - started
    logger.info("%s in %.0f s, memory +%.0f MiB", dict(counts), seconds, growth_mib)
    assert counts["segments"] > sum(counts.values()) / 3
    assert set(counts) <= {"segments", "TextError"}
    assert growth_mib < MAX_GROWTH_MIB


@pytest.mark.parametrize("name", CORPUS)
def test_corpus(stage: TextStage, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    before_mib = peak_mib()
    refused = name.startswith(("one MB", "empty", "spaces", "nul", "only", "surrogate", "two"))
    assert outcome(stage, CORPUS[name]) == ("TextError" if refused else "segments")
    assert peak_mib() - before_mib < MAX_GROWTH_MIB


def test_the_longest_text_that_is_taken(stage: TextStage) -> None:
    caught = "a " * (MAX_TEXT_CHARACTERS // 2) + "a"
    with pytest.raises(TextError, match="200,000"):
        stage(caught)


@pytest.mark.slow
def test_a_chapter_takes_bounded_memory(stage: TextStage) -> None:
    """Read at once, 20,000 characters took 1.7 GB."""
    before_mib = peak_mib()
    chapter = "On May 4th, 2021 she paid $25.50 (cash) at 10:30, no. 7. " * (MAX_TEXT_CHARACTERS // 57)
    assert outcome(stage, chapter) == "segments"
    assert peak_mib() - before_mib < MAX_GROWTH_MIB
