"""Train the classifier of ``indextts/text_emotion.py`` on ``training/text_emotion``, in minutes on one CPU core.

    python -m training.train_text_emotion               # writes indextts/text_emotion.safetensors
    python -m training.train_text_emotion --validate    # writes nothing: accuracy over four folds of the sentences
    python -m training.train_text_emotion --test        # writes nothing: accuracy on the test sentences

``text_emotion/LANGUAGE/EMOTION.txt`` has a sentence or a description a line, ``words.tsv`` words and phrases of each
emotion. All of it was written for this purpose. The sentences of ``tests/data/text_emotion.tsv`` are used neither here
nor for any choice of a setting: those were made by ``--validate``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from indextts.emotion import EMOTIONS
from indextts.resources import TEXT_EMOTION
from indextts.text_emotion import BundledTextEmotion, Weights, hashed

DATA = Path(__file__).with_name("text_emotion")
TEST = Path(__file__).parents[1] / "tests" / "data" / "text_emotion.tsv"
SEPARATORS = {"en": ", ", "zh": "、"}  # between the phrases of words.tsv

KEPT_FEATURES = 12_000
PHRASE_WEIGHT = 0.5  # of a phrase's loss, against 1 of a sentence's
DECAY = 0.05  # of the squared weights, against the summed loss
FOLDS = 4


@dataclass(frozen=True)
class Example:
    """A text, the emotion that it expresses, and its language. ``phrase``: of a list, and no sentence."""

    text: str
    emotion: str
    language: str
    phrase: bool = False

    @property
    def label(self) -> int:
        return EMOTIONS.index(self.emotion)


def training_examples(folder: Path = DATA) -> list[Example]:
    """All of the training data."""
    examples = []
    for language, separator in SEPARATORS.items():
        for emotion in EMOTIONS:
            lines = (folder / language / f"{emotion}.txt").read_text(encoding="utf-8").splitlines()
            examples += [Example(line, emotion, language) for line in lines]
        for line in (folder / language / "words.tsv").read_text(encoding="utf-8").splitlines():
            emotion, phrases = line.split("\t")
            examples += [Example(phrase, emotion, language, True) for phrase in phrases.split(separator)]
    return examples


def kept_apart(path: Path = TEST) -> list[Example]:
    """The sentences that are kept apart."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [Example(text, emotion, language) for emotion, language, text in rows]


def train(examples: Sequence[Example]) -> Weights:
    """Fit all features, keep those that matter, fit these again, and round to eight bits."""
    hashes = [hashed(example.text) for example in examples]
    keys, counts = np.unique(np.concatenate(hashes), return_counts=True)
    coarse, _ = fit(examples, hashes, keys)
    importance = np.abs(coarse).max(axis=1) * np.sqrt(counts)
    kept = np.sort(np.argsort(-importance, kind="stable")[:KEPT_FEATURES])
    fine, bias = fit(examples, hashes, keys[kept])
    scale = np.abs(fine).max() / 127
    rounded = np.round(fine / scale).astype(np.int8)
    return Weights(keys[kept], rounded, np.array([scale], np.float32), bias.astype(np.float32))


def fit(examples: Sequence[Example], hashes: list[np.ndarray], keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Softmax regression on those features that are in ``keys`` ``[K]``: weights ``[K, 8]`` and bias ``[8]``."""
    known = [np.isin(row, keys) for row in hashes]
    columns = torch.from_numpy(np.concatenate([keys.searchsorted(r[k]) for r, k in zip(hashes, known, strict=True)]))
    lengths = [int(k.sum()) for k in known]
    offsets = torch.tensor(np.cumsum([0, *lengths[:-1]]))
    values = torch.tensor(np.repeat([len(row) ** -0.5 for row in hashes], lengths))
    labels = torch.tensor([example.label for example in examples])
    share = torch.tensor([PHRASE_WEIGHT if example.phrase else 1.0 for example in examples], dtype=torch.float64)
    weights = torch.zeros(len(keys), len(EMOTIONS), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(EMOTIONS), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=200, tolerance_grad=1e-4, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        sums = torch.nn.functional.embedding_bag(columns, weights, offsets, mode="sum", per_sample_weights=values)
        losses = torch.nn.functional.cross_entropy(sums + bias, labels, reduction="none")
        total = (share * losses).sum() + DECAY / 2 * weights.square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    return weights.detach().numpy(), bias.detach().numpy()


def classifier(weights: Weights) -> BundledTextEmotion:
    """The classifier with ``weights`` instead of the bundled ones."""
    made = BundledTextEmotion()
    made.weights = weights
    return made


def accuracy(read: BundledTextEmotion, examples: Sequence[Example]) -> dict[str, float]:
    """The share of ``examples`` whose strongest emotion is right: of all, and of each language."""
    right = np.array([int(np.argmax(read(example.text))) == example.label for example in examples])
    found = {"all": float(right.mean())}
    for language in SEPARATORS:
        found[language] = float(right[[example.language == language for example in examples]].mean())
    return found


def validate(examples: Sequence[Example]) -> dict[str, float]:
    """Accuracy on the sentences of each fold, when trained on the others and on all phrases."""
    sentences = [example for example in examples if not example.phrase]
    phrases = [example for example in examples if example.phrase]
    order = np.random.default_rng(0).permutation(len(sentences))
    parts = [[sentences[i] for i in order[fold::FOLDS]] for fold in range(FOLDS)]
    found = []
    for part in parts:
        others = [example for other in parts if other is not part for example in other]
        found.append(accuracy(classifier(train(others + phrases)), part))
    return {name: float(np.mean([fold[name] for fold in found])) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--validate", action="store_true")
    what.add_argument("--test", action="store_true")
    options = parser.parse_args()
    if options.test:
        print(accuracy(BundledTextEmotion(), kept_apart()))
    elif options.validate:
        print(validate(training_examples()))
    else:
        save_file(train(training_examples())._asdict(), TEXT_EMOTION)


if __name__ == "__main__":
    main()
