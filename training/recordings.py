"""A folder with recordings of one speaker, and what is said in them, as data to train on.

The texts are in ``NAME.txt`` beside ``NAME.wav``, or all of them in ``metadata.csv`` in the form of LJSpeech, a line
``NAME|text`` for each recording, which then may also be in ``wavs/``. A third column, the text as it is read out, goes
before the second.

The result is what ``training/dataset.py`` reads. Nobody knows which sound is where: every utterance is one long pause.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from indextts.audio import check_prompt, load_audio, num_semantic_frames, recording_length, to_pcm16
from indextts.config import GPTConfig
from indextts.errors import AudioError, IndexTTSError, TextError
from indextts.prompts import MAX_RECORDING_S, trim
from indextts.stages.text import has_speech
from indextts.text.limits import check_text
from indextts.text.normalizer import is_chinese
from indextts.text.tokenizer import TextTokenizer
from indextts.voices import SUFFIX
from training.dataset import PHONE_FRAME_S, SAMPLE_RATE_HZ
from training.extract_semantics import samples_at_16k
from training.generate import Utterance, write_shard
from training.gpt_batches import FRAME_HZ
from training.prepare_tokens import save_tokens
from training.styles import Prosody

METADATA, WAVES = "metadata.csv", "wavs"
HELDOUT_SHARE, LEAST_HELDOUT = 0.1, 2
LEAST_TEXTS = 6
NEUTRAL = 0  # the style of everything


class UnusableRecordings(IndexTTSError):
    """There is no folder of recordings, or too little in it to train on."""


@dataclass(frozen=True)
class Problem:
    """Why a file is not trained on."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Recording:
    """A file, and what is said in it."""

    path: Path
    text: str


@dataclass(frozen=True)
class Spoken:
    """A recording that can be trained on: int16 ``[N]`` at 22.05 kHz, and the ids of its text."""

    text: str
    samples: np.ndarray
    ids: tuple[int, ...]


def find_recordings(folder: Path) -> tuple[list[Recording], list[Problem]]:
    """All recordings with a text, by name, and what is there without the other.

    Raises:
        UnusableRecordings: the folder cannot be read, or nothing of the kind is in it.
    """
    by_name: dict[str, Path] = {}
    problems = []
    for path in _files(folder):
        if path.suffix.lower() not in SUFFIX.values():
            continue
        if path.stem in by_name:
            problems.append(Problem(path.name, f"has the same name as {by_name[path.stem].name}"))
        by_name.setdefault(path.stem, path)
    metadata = folder / METADATA
    texts, more = _metadata(metadata) if metadata.is_file() else _text_files(folder)
    where = METADATA if metadata.is_file() else "NAME.txt"
    problems += more
    problems += [
        Problem(by_name[n].name, f"has no text, which should be in {where}") for n in by_name if n not in texts
    ]
    problems += [Problem(name, "has a text and no recording") for name in texts if name not in by_name]
    if not by_name:
        kinds = ", ".join(SUFFIX.values())
        raise UnusableRecordings(f"there are no recordings ({kinds}) in {str(folder)!r}")
    pairs = ((by_name[name], texts.get(name)) for name in sorted(by_name))
    return [Recording(path, text) for path, text in pairs if text is not None], problems


def _files(folder: Path) -> Iterator[Path]:
    for place in (folder, folder / WAVES):
        if place == folder or place.is_dir():
            try:
                yield from sorted(path for path in place.iterdir() if path.is_file() and path.name[0] != ".")
            except OSError as error:
                raise UnusableRecordings(f"cannot read the recordings in {str(place)!r}: {error.strerror}") from error


def _text_files(folder: Path) -> tuple[dict[str, str | None], list[Problem]]:
    """The texts by name, None where there is a problem, and the problems."""
    texts: dict[str, str | None] = {}
    problems = []
    for path in _files(folder):
        if path.suffix.lower() == ".txt":
            try:
                texts[path.stem] = path.read_text(encoding="utf-8-sig").strip()
            except UnicodeDecodeError:
                texts[path.stem] = None
                problems.append(Problem(path.name, "is not UTF-8"))
    return texts, problems


def _metadata(path: Path) -> tuple[dict[str, str | None], list[Problem]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UnusableRecordings(f"{path} is not UTF-8") from error
    texts: dict[str, str | None] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        name, *columns = (column.strip() for column in line.split("|"))
        stem = Path(name).stem if Path(name).suffix.lower() in SUFFIX.values() else Path(name).name
        if not name and not columns:
            continue
        if not stem or len(columns) not in (1, 2):
            problems.append(Problem(f"line {number} of {path.name}", f"should be NAME|text, not {line[:60]!r}"))
        elif stem in texts:
            problems.append(Problem(f"line {number} of {path.name}", f"has {stem!r} once more"))
        else:
            texts[stem] = columns[-1] or columns[0]
    return texts, problems


def read_all(
    recordings: Iterable[Recording], tokenizer: TextTokenizer, config: GPTConfig
) -> tuple[list[Spoken], list[Problem]]:
    """Every recording that the model can be trained on, and why it cannot on the others."""
    spoken, problems = [], []
    for recording in recordings:
        try:
            spoken.append(read(recording, tokenizer, config))
        except (AudioError, TextError) as error:
            problems.append(Problem(recording.path.name, str(error)))
    return spoken, problems


def read(recording: Recording, tokenizer: TextTokenizer, config: GPTConfig) -> Spoken:
    """Decode a recording, cut silence off its ends, and read its text.

    Raises:
        AudioError, TextError: the model cannot be trained on it.
    """
    check_text(recording.text)
    tokens = tokenizer.tokenize(recording.text)
    if not has_speech(tokens):
        raise TextError(f"there is nothing to speak in the text {recording.text[:80]!r}")
    if len(tokens) > config.max_text_tokens:
        raise TextError(f"the text has {len(tokens)} tokens: the model knows at most {config.max_text_tokens}")
    _, recorded_s = recording_length(recording.path)
    longest_s = config.max_mel_tokens / FRAME_HZ
    too_long = f"at most {longest_s:g} s can be trained on: cut it up"
    if recorded_s > MAX_RECORDING_S:
        raise AudioError(f"the recording is too long, {recorded_s:.1f} s; {too_long}")
    wave = load_audio(recording.path, SAMPLE_RATE_HZ)
    check_prompt(wave, SAMPLE_RATE_HZ, recording.path.name)
    heard = trim(wave[0].numpy(), SAMPLE_RATE_HZ)
    if num_semantic_frames(samples_at_16k(torch.tensor(len(heard)))) > config.max_mel_tokens:
        raise AudioError(f"the recording is too long, {len(heard) / SAMPLE_RATE_HZ:.1f} s; {too_long}")
    samples = to_pcm16(torch.from_numpy(heard / max(1.0, float(np.abs(heard).max()))))
    return Spoken(recording.text, samples, tuple(tokenizer.ids(tokens)))


def write_data(folder: Path, spoken: list[Spoken], seed: int) -> None:
    """Write the data of one speaker: some texts are held out, and who speaks them counts as another voice.

    That way prompt and target are both of the held-out recordings, or both of the others.

    Raises:
        UnusableRecordings: there are too few different texts.
    """
    texts = list(dict.fromkeys(one.text for one in spoken))
    if len(texts) < LEAST_TEXTS:
        raise UnusableRecordings(
            f"{len(texts)} different texts are too few to train on and to test with: at least {LEAST_TEXTS} are needed"
        )
    heldout_count = max(LEAST_HELDOUT, round(HELDOUT_SHARE * len(texts)))
    heldout = set(np.random.default_rng(seed).permutation(len(texts))[:heldout_count].tolist())
    sentences = [
        {"text": text, "language": "zh" if is_chinese(text) else "en", "phonemes": "", "heldout": index in heldout}
        for index, text in enumerate(texts)
    ]
    voices = [{"name": "speaker", "heldout": False}, {"name": "speaker, held out", "heldout": True}]
    row = {text: index for index, text in enumerate(texts)}
    utterances = [
        Utterance(int(row[one.text] in heldout), row[one.text], NEUTRAL, 0.0, Prosody(), (0, 0)) for one in spoken
    ]
    ids = {one.text: one.ids for one in spoken}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("sentences.json", sentences), ("voices.json", voices)):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    rows = [ids[text] for text in texts]
    save_tokens(folder / "tokens.npz", rows, [[-1] * len(own) for own in rows])
    write_shard(folder / "shard_00000", utterances, sentences, [_as_read(one) for one in spoken])


def _as_read(one: Spoken) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Samples, symbols, and how long each of them lasts, in the frames of the teacher."""
    frames = int(np.ceil(len(one.samples) / SAMPLE_RATE_HZ / PHONE_FRAME_S))
    return one.samples, [0], np.array([frames])
