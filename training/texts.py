"""Makes ``sentences.json``: what the teacher reads, with its phonemes.

    python -m training.texts --hsk hsk_sentences_audio/data/sentences.json --vocab PACK/vocab.json --out DATA

English: the example sentences and definitions of WordNet 3.0 (Debian ``wordnet-base``, WordNet licence) and the
templates of ``training/templates.py``. Mandarin: the sentences of the PyPI package ``hsk-sentences-audio``
(CC-BY-SA-4.0), templates, some with English in them, and lists of the commonest words of ``jieba`` (MIT), for the
syllables that no sentence has. Texts stand there as ``indextts`` normalises them, so training needs no normaliser.

Needs ``hibari-tts``, ``misaki``, ``jieba``, ``pypinyin``, ``cn2an``, ``ordered-set`` and ``wetext``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from indextts.resources import EVAL_SENTENCES
from training.templates import english_templates, mandarin_templates, mixed_templates, word_lists

WORDNET = Path("/usr/share/wordnet")
EVALUATION_SENTENCES = (EVAL_SENTENCES, *Path(__file__).parent.glob("eval_*.txt"))
CRUDE = re.compile(
    r"\b(fuck\w*|shit\w*|nigger\w*|niggra|whore\w*|cunt\w*|faggot\w*|raped?|raping|slut\w*|bitch\w*|wop|kike|spic|"
    r"chink|honky|coon|darky|wetback|jap|gook|squaw|prick|cock|tits?|penis\w*|vagina\w*|masturbat\w*|copulat\w*|"
    r"fornicat\w*|homosexual\w*|prostitut\w*|sexual\w*)\b",
    re.IGNORECASE,
)
"""WordNet explains words that nobody wants to hear from a demonstration."""
HELDOUT_PERCENT = 5
NUM_EVALUATION = 200
MAX_DEFINITIONS = 45_000
NUM_SINGLE_WORDS = 2_500
NUM_CHINESE_WORDS, NUM_WORD_LISTS = 20_000, 6_000
NUM_JOINED = {"en": 22_000, "zh": 9_000}
MAX_JOINED_SYMBOLS = 230
"""About 15 seconds of speech."""


@dataclass
class Sentence:
    """One row of ``sentences.json``; ``kind`` says where it comes from."""

    text: str
    language: str
    kind: str
    phonemes: str = ""
    heldout: bool = False
    eval: bool = False


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def wordnet_examples() -> Iterator[str]:
    """The quoted example sentences, with the capital and the full stop that most of them lack."""
    for line in wordnet_lines("noun", "verb", "adj", "adv"):
        for example in re.findall(r'"([^"]+)"', line.partition(" | ")[2]):
            example = example.strip().strip(";,").strip()
            words = len(example.split())
            if 2 <= words <= 25 and re.fullmatch(r"[A-Za-z0-9 ,.'!?$%:-]+", example):
                yield capitalised(example if example[-1] in ".!?" else example + ".")


def wordnet_definitions() -> Iterator[str]:
    """The definitions, some as they are, some as a sentence about the word that they define."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in wordnet_lines(part):
            head, _, gloss = line.partition(" | ")
            lemma = head.split()[4].replace("_", " ").split("(")[0]
            meaning = re.sub(r"\([^)]*\)", " ", gloss.partition('"')[0]).split(";")[0]
            meaning = " ".join(meaning.split()).strip(" ,:")
            if not re.fullmatch(r"[A-Za-z ,'-]+", meaning) or not 3 <= len(meaning.split()) <= 20:
                continue
            if re.fullmatch(r"[a-z][a-z -]+", lemma) and stable_fraction(head) < 0.6:
                if part == "noun" and re.match(r"(a|an|the|any|one|some)\b", meaning):
                    article = "An" if lemma[0] in "aeiou" else "A"
                    meaning = f"{article} {lemma} is {meaning}"
                elif part == "verb":
                    meaning = f"to {lemma} means to {meaning}"
            yield capitalised(meaning) + "."


def wordnet_lines(*parts: str) -> Iterator[str]:
    for part in parts:
        for line in (WORDNET / f"data.{part}").read_text(encoding="utf-8", errors="replace").splitlines():
            if not line.startswith("  "):
                yield line


def wordnet_words() -> list[str]:
    """The commonest words of WordNet, each as a short utterance."""
    counts: dict[str, int] = {}
    for line in (WORDNET / "cntlist.rev").read_text(encoding="utf-8").splitlines():
        key, _, count = line.split()
        word = key.partition("%")[0].replace("_", " ")
        if re.fullmatch(r"[a-z][a-z ]+", word):
            counts[word] = counts.get(word, 0) + int(count)
    words = sorted(counts, key=lambda w: (-counts[w], w))[:NUM_SINGLE_WORDS]
    return [capitalised(word) + ".!?,"[(i % 10 > 6) + (i % 10 > 8)] for i, word in enumerate(words)]


def chinese_words() -> list[str]:
    """The commonest words of two to four characters in jieba's dictionary."""
    import jieba

    counts = {}
    for line in jieba.get_dict_file().read().decode("utf-8").splitlines():
        word, count, _ = line.split(" ")
        if re.fullmatch(r"[\u4e00-\u9fff]{2,4}", word):
            counts[word] = int(count)
    return sorted(counts, key=lambda word: (-counts[word], word))[:NUM_CHINESE_WORDS]


def stable_fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:4]) / 2**32


def is_natural(text: str) -> bool:
    """Whether an example is a whole sentence about somebody or something."""
    begins = r"(I|He|She|We|They|You|It|The|This|His|Her|My|Our|There|What|Who|How|Where|Do|Did|Please)\b"
    verbs = r"\b(is|are|was|were|had|has|have|do|did|will|would|can|could|[a-z]+ed|went|made|took|gave)\b"
    plain = not re.search(r"[0-9$%:]", text)
    return bool(plain and 5 <= len(text.split()) <= 20 and re.match(begins, text) and re.search(verbs, text))


def words_of(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z']+", text.lower()))


class NearDuplicates:
    """Finds texts that share half of their words or four words in a row with one of the evaluation sentences.

    Chinese texts are compared by six characters in a row.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        texts = list(texts)
        self.runs = {run for text in texts for run in self._runs(text)}
        self.bags = [words_of(text) for text in texts]
        self.with_word: dict[str, set[int]] = {}
        for index, bag in enumerate(self.bags):
            for word in bag:
                self.with_word.setdefault(word, set()).add(index)
        self.rows = {row for text in texts for row in self._rows(text)}

    @staticmethod
    def _rows(text: str) -> Iterator[tuple[str, ...]]:
        words = re.findall(r"[a-z']+", text.lower())
        return (tuple(words[i : i + 4]) for i in range(len(words) - 3))

    @staticmethod
    def _runs(text: str) -> Iterator[str]:
        characters = "".join(re.findall(r"[\u4e00-\u9fff]", text))
        return (characters[i : i + 6] for i in range(len(characters) - 5))

    def __contains__(self, text: str) -> bool:
        if any(run in self.runs for run in self._runs(text)):
            return True
        if any(row in self.rows for row in self._rows(text)):
            return True
        bag = words_of(text)
        shared: dict[int, int] = {}
        for word in bag:
            for index in self.with_word.get(word, ()):
                shared[index] = shared.get(index, 0) + 1
        return any(n >= 0.5 * len(bag | self.bags[i]) for i, n in shared.items())


def split(sentences: list[Sentence], seed: int) -> list[Sentence]:
    """Marks the evaluation and held-out sentences and drops what is too near to an evaluation sentence."""
    natural = [s for s in sentences if s.kind == "example" and is_natural(s.text)]
    chosen = random.Random(seed).sample(natural, min(NUM_EVALUATION, len(natural) // 10))
    for sentence in chosen:
        sentence.eval = sentence.heldout = True
    near = NearDuplicates(s.text for s in chosen)
    kept = [s for s in sentences if s.eval or s.language != "en" or s.text not in near]
    for sentence in kept:
        if stable_fraction(" ".join(sorted(words_of(sentence.text))) or sentence.text) < HELDOUT_PERCENT / 100:
            sentence.heldout = True
    return kept


def presentable(sentences: list[Sentence], written: Iterable[Path]) -> list[Sentence]:
    """Leaves out crude texts and what is too near to the evaluation sentences written for the purpose."""
    lines = (line for path in written for line in path.read_text(encoding="utf-8").splitlines())
    near = NearDuplicates(line for line in lines if line)
    return [s for s in sentences if not CRUDE.search(s.text) and s.text not in near]


def join(sentences: list[Sentence], language: str, count: int, seed: int) -> Iterator[Sentence]:
    """Utterances of several sentences, of one side of the split each, up to about 15 seconds."""
    generator = random.Random(seed)
    parts = [s for s in sentences if s.language == language and s.kind not in ("word", "definition")]
    space = "" if language == "zh" else " "
    for heldout in (False, True):
        side = [s for s in parts if s.heldout == heldout and not s.eval]
        for _ in range(count * (HELDOUT_PERCENT if heldout else 100 - HELDOUT_PERCENT) // 100 if side else 0):
            picked, limit = [generator.choice(side)], generator.randint(110, MAX_JOINED_SYMBOLS)
            while len(picked) < 6:
                more = generator.choice(side)
                if sum(len(s.phonemes) + 1 for s in [*picked, more]) > limit:
                    break
                picked.append(more)
            if len(picked) > 1:
                text, phonemes = space.join(s.text for s in picked), " ".join(s.phonemes for s in picked)
                yield Sentence(text, language, "joined", phonemes, heldout)


class Phonemiser:
    """Normalises and phonemises; None for what the teacher has no symbols for."""

    def __init__(self, vocab: dict[str, int]) -> None:
        from hibari import Hibari
        from misaki.zh import ZHG2P

        from indextts.text.normalizer import TextNormalizer

        self.vocab, self.normalise = vocab, TextNormalizer()
        self.english, self.mandarin = Hibari(), ZHG2P()

    def __call__(self, sentence: Sentence) -> Sentence | None:
        sentence.text = " ".join(self.normalise(sentence.text).replace("\\", "").split())
        if re.search(r"[0-9]", sentence.text) or not sentence.text:
            return None
        if sentence.language == "en":
            phonemes = " ".join(self.english.phonemize(sentence.text))
        else:
            phonemes = " ".join(self._both(sentence.text))
            phonemes = re.sub(r"(?<=[,.!?…])(?=[^ ,.!?…])", " ", phonemes)
        sentence.phonemes = " ".join(phonemes.split()).replace(" .", ".").replace(" ,", ",")
        known = all(symbol in self.vocab for symbol in sentence.phonemes)
        return sentence if known and 2 <= len(sentence.phonemes) <= 400 else None

    def _both(self, text: str) -> Iterator[str]:
        """Symbols of Mandarin and of the English words in it, the latter as ``indextts`` reads them."""
        from indextts.text.phonemes import to_phonemes

        for english, mandarin in re.findall(r"([A-Za-z][A-Za-z' ]*)|([^A-Za-z]+)", text):
            if english.strip():
                yield to_phonemes(english.strip())
            elif mandarin.strip():
                yield self.mandarin(mandarin.strip())[0]


_phonemiser: Phonemiser | None = None


def _start_worker(vocab: dict[str, int]) -> None:
    global _phonemiser
    _phonemiser = Phonemiser(vocab)


def _phonemise(sentence: Sentence) -> Sentence | None:
    assert _phonemiser is not None
    return _phonemiser(sentence)


def collect(hsk: Path, seed: int) -> list[Sentence]:
    """All texts, each once."""
    definitions = list(dict.fromkeys(wordnet_definitions()))
    random.Random(seed).shuffle(definitions)
    found = [Sentence(t, "en", "template") for t in english_templates(seed)]
    found += [Sentence(t, "en", "example") for t in wordnet_examples()]
    found += [Sentence(t, "en", "word") for t in wordnet_words()]
    found += [Sentence(t, "en", "definition") for t in definitions[:MAX_DEFINITIONS]]
    found += [Sentence(row["chinese"], "zh", "hsk") for row in json.loads(hsk.read_text(encoding="utf-8"))]
    found += [Sentence(t, "zh", "template") for t in mandarin_templates(seed)]
    found += [Sentence(t, "zh", "mixed") for t in mixed_templates(seed)]
    found += [Sentence(t, "zh", "word") for t in word_lists(chinese_words(), NUM_WORD_LISTS, seed)]
    return list({s.text.lower(): s for s in reversed(found)}.values())[::-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hsk", type=Path, required=True)
    parser.add_argument("--vocab", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="take a random selection of this size")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    sentences = collect(args.hsk, args.seed)
    if args.limit:
        sentences = random.Random(args.seed).sample(sentences, args.limit)
    vocab = json.loads(args.vocab.read_text(encoding="utf-8"))["vocab"]
    with multiprocessing.Pool(2, _start_worker, (vocab,)) as pool:
        phonemised = [s for s in pool.map(_phonemise, sentences, chunksize=500) if s is not None]
    kept = split(phonemised, args.seed)
    for language, count in NUM_JOINED.items():
        kept += list(join(kept, language, int(count * min(1.0, len(kept) / 60_000)), args.seed))
    kept = presentable(kept, EVALUATION_SENTENCES)
    args.out.mkdir(parents=True, exist_ok=True)
    temporary = args.out / "sentences.json.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump([asdict(s) for s in kept], file, ensure_ascii=False, separators=(",", ":"))
    temporary.rename(args.out / "sentences.json")


if __name__ == "__main__":
    main()
