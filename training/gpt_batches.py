"""Batches for the language model: who speaks (prompt), how (emotion prompt), what (text), and the codes of it.

All choices are made on the host in numpy, so that every shape is known there and the device is never waited for; the
data itself stays on the device and is gathered. Utterances of similar length form groups with fixed paddings, so that
few shapes occur and each many times: a training step is captured once for every new shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from indextts.config import GPTConfig
from indextts.models.conformer import length_mask
from training.dataset import SpeechData
from training.frames import PHONE_SHIFT
from training.semantics import Semantics

FRAME_HZ = 50
MIN_PROMPT_S = 2.0
PROMPT_WIDTH = 497  # longest prompt in frames; half of it, rounded down, is a multiple of 8
CODE_GROUPS, TEXT_GROUPS = 10, 2  # utterances are grouped by their number of codes, then by that of text ids
SMALLEST_GROUP = 64
MIN_PROMPT_FRAMES = 40
OWN_EMOTION = 0.35  # how often the emotion is heard in the speaker's prompt, where one has the style of the target
TWO_UTTERANCE_PROMPT = 0.5
TARGET_EMOTION = 0.05  # how often it is heard in the target itself
HINTED = 0.4  # how often the length of the target is told
AUGMENTED = 0.5
MAX_INTENSITY_DIFFERENCE = 0.3
CANDIDATES = 8  # prompts looked at for each target


@dataclass(frozen=True)
class GPTBatch:
    """One step of training, padded on the right.

    Attributes:
        prompt: ``[B, T, D]`` semantic embeddings of the speaker, with ``prompt_lengths [B]``.
        emotion: ``[B, T', D]`` of the utterance that sets the emotion, with ``emotion_lengths [B]``.
        text: ``[B, L]`` ids, with ``text_lengths [B]``.
        codes: ``[B, M]``, with ``code_lengths [B]``; without the stop code.
        spoken: ``[B, M]``, which of the text ids each code speaks, -1 where nobody knows.
        length_hints: ``[B]``, the number of codes where it is told, else 0.
        style: ``[B]``, which emotion is told, beside what is heard in the prompt; 0 where none is.
        intensity: float ``[B]``, how strongly, 0 where none is told.
    """

    prompt: Tensor
    prompt_lengths: Tensor
    emotion: Tensor
    emotion_lengths: Tensor
    text: Tensor
    text_lengths: Tensor
    codes: Tensor
    code_lengths: Tensor
    spoken: Tensor
    length_hints: Tensor
    style: Tensor
    intensity: Tensor


@dataclass(frozen=True)
class Choice:
    """Which utterances a batch is made of, all ``[B]``.

    ``second`` continues the prompt where ``two`` is true. Where ``told`` is, the style of the target is told.
    """

    target: np.ndarray
    first: np.ndarray
    second: np.ndarray
    two: np.ndarray
    emotion: np.ndarray
    own_emotion: np.ndarray
    told: np.ndarray

    def resized(self, rows: int) -> Choice:
        """As many rows as wanted: the first ones, or some of them again."""
        return Choice(*(np.resize(getattr(self, field.name), rows) for field in fields(self)))


class GPTBatches:
    """Draws prompts for targets and gathers batches.

    Args:
        told: Share of the targets with an emotion of which it is told.

    Attributes:
        usable: Utterances that can be targets: they fit the model, and their voice has said something else.
        left_out: Number of utterances that cannot.
        groups: Utterances of similar length; their batches have ``text_width`` and ``code_width``, given for each
            utterance.
    """

    def __init__(
        self,
        data: SpeechData,
        semantics: Semantics,
        tokens: Path,
        config: GPTConfig,
        device: torch.device,
        seed: int,
        told: float = 0.0,
    ) -> None:
        semantics.check(data)
        self.semantics, self.config, self.device = semantics, config, device
        self.random = np.random.default_rng(seed)
        self.hinted, self.told = HINTED if config.length_hints else 0.0, told
        count = len(semantics)
        self.voice, self.sentence, self.style = (
            getattr(data, name)[:count].cpu().numpy() for name in ("voice", "sentence", "style")
        )
        self.intensity = data.intensity[:count].cpu().numpy()
        self.length = semantics.length.cpu().numpy()
        self.text, places, self.text_length = _load_tokens(tokens, device)
        if len(self.text_length) != len(data.sentences):
            raise ValueError(f"{tokens} has {len(self.text_length)} sentences, the data {len(data.sentences)}")
        self.codes = code_table(semantics)
        self.spoken = spoken_table(data, places, self.codes.shape[1], count)

        self.by_voice = np.argsort(self.voice, kind="stable")
        self.voice_count = np.bincount(self.voice)
        self.voice_start = np.cumsum(self.voice_count) - self.voice_count
        self.by_style = np.lexsort((self.intensity, self.style))
        self.style_rank = np.empty(count, np.int64)
        self.style_rank[self.by_style] = np.arange(count)
        style_count = np.bincount(self.style)
        self.style_end = np.cumsum(style_count)
        self.style_start = self.style_end - style_count

        sentences_of_voice = np.unique(np.stack((self.voice, self.sentence)), axis=1)[0]
        distinct = np.bincount(sentences_of_voice, minlength=len(self.voice_count))
        text_length = self.text_length[self.sentence]
        fits = (self.length > 0) & (self.length <= config.max_mel_tokens)
        fits &= (text_length > 0) & (text_length <= config.max_text_tokens)
        self.usable = np.flatnonzero(fits & (distinct[self.voice] > 1))
        self.left_out = count - len(self.usable)
        if not len(self.usable):
            raise ValueError("no utterance can be trained on: too long, without text, or alone in its voice")
        self.text_width, self.code_width = text_length.copy(), self.length.copy()
        by_codes = self._split(self.usable, self.length, CODE_GROUPS)
        self.groups = [group for part in by_codes for group in self._split(part, text_length, TEXT_GROUPS)]
        for group in self.groups:
            self.text_width[group] = _multiple_of_8(text_length[group].max(), config.max_text_tokens)
            self.code_width[group] = _multiple_of_8(self.length[group].max(), config.max_mel_tokens)

    @property
    def _fixed_tokens(self) -> int:
        """What stands in a row beside text and codes: latents, two speed rows, two edges of the text, start code."""
        return self.config.condition_num_latent + 2 + 2 + 1

    def row_tokens(self, targets: np.ndarray) -> np.ndarray:
        """Length of the sequence that the model reads for each target."""
        return self.length[targets] + self.text_length[self.sentence[targets]] + self._fixed_tokens

    def code_counts(self) -> Tensor:
        """How often the model is to say each code, int64 ``[number_mel_codes]``, stop included."""
        counts = _counts(self.codes[self.usable], self.length[self.usable], self.config.number_mel_codes)
        counts[self.config.stop_mel_token] += len(self.usable)
        return counts

    def text_counts(self) -> Tensor:
        """The same of the ids of the text, int64 ``[number_text_tokens + 1]``."""
        sentence = self.sentence[self.usable]
        counts = _counts(self.text[sentence], self.text_length[sentence], self.config.number_text_tokens + 1)
        counts[self.config.stop_text_token] += len(self.usable)
        return counts

    def _split(self, utterances: np.ndarray, length: np.ndarray, parts: int) -> list[np.ndarray]:
        parts = min(parts, max(1, len(utterances) // SMALLEST_GROUP))
        return np.array_split(utterances[np.argsort(length[utterances], kind="stable")], parts)

    def epoch(self, batch_tokens: int) -> Iterator[np.ndarray]:
        """All usable utterances once, as targets of batches of up to ``batch_tokens``, padding included.

        A batch holds utterances of one group; the batches come in random order. All batches of a group have the same
        number of rows: the last one is filled up with utterances that are in the epoch already.
        """
        batches = []
        for group in self.groups:
            padded = self.text_width[group[0]] + self.code_width[group[0]] + self._fixed_tokens
            rows = min(len(group), max(1, int(batch_tokens // padded)))
            count = -(-len(group) // rows) * rows
            batches += np.split(np.resize(self.random.permutation(group), count), count // rows)
        for index in self.random.permutation(len(batches)):
            yield batches[index]

    def choose(self, targets: np.ndarray) -> Choice:
        """Draw a prompt and an emotion prompt for each target; targets that find no prompt are dropped.

        Where the emotion is not heard in the speaker's own prompt, that prompt rather has another style than the
        target, and the emotion comes from another voice or is told: else nobody would need to listen to it.
        """
        random, count = self.random, self.voice_count[self.voice[targets]]
        place = (random.random((CANDIDATES, len(targets))) * count).astype(np.int64)
        candidates = self.by_voice[self.voice_start[self.voice[targets]] + place]
        valid = self.sentence[candidates] != self.sentence[targets]
        enough = self.length[candidates] >= MIN_PROMPT_FRAMES
        told = (self.style[targets] > 0) & (random.random(len(targets)) < self.told)
        wanted = (random.random(len(targets)) < OWN_EMOTION) & ~told
        quality = 4 * valid + 2 * enough + (wanted == self._alike(candidates, targets))
        order = np.argsort(-quality, axis=0, kind="stable")[:2]
        candidates, valid = (np.take_along_axis(x, order, 0) for x in (candidates, valid))

        found = valid[0]
        targets, wanted, told, (first, second) = targets[found], wanted[found], told[found], candidates[:, found]
        two = valid[1, found] & self._alike(first, second) & (random.random(len(first)) < TWO_UTTERANCE_PROMPT)
        own = told | (wanted & self._alike(first, targets))
        itself = random.random(len(first)) < TARGET_EMOTION
        emotion = np.where(own, first, np.where(itself, targets, self._same_emotion(targets)))
        return Choice(targets, first, second, two, emotion, own, told)

    def gather(self, choice: Choice) -> GPTBatch:
        """Cut the prompts at random and put the batch together."""
        width = PROMPT_WIDTH
        frames = self.random.integers(int(MIN_PROMPT_S * FRAME_HZ), width + 1, len(choice.target))
        sentence = self.sentence[choice.target]
        # Where there are two utterances, an excerpt of the first, and behind it one of the second.
        begin, first_frames = self._crop(choice.first, np.where(choice.two, frames // 2, frames))
        second_begin, second_frames = self._crop(choice.second, (frames - first_frames) * choice.two)
        emotion_begin, emotion_frames = self._crop(choice.emotion, frames)
        at = upload(
            self.device,
            target=choice.target,
            sentence=sentence,
            text_lengths=self.text_length[sentence],
            code_lengths=self.length[choice.target],
            first=choice.first,
            begin=begin,
            first_frames=first_frames,
            second=choice.second,
            second_begin=second_begin - first_frames,
            prompt_lengths=first_frames + second_frames,
            emotion=choice.emotion,
            emotion_begin=emotion_begin,
            emotion_frames=emotion_frames,
            own=choice.own_emotion,
            style=self.style[choice.target] * choice.told,
            permille=np.round(self.intensity[choice.target] * 1000) * choice.told,
            length_hints=self.length[choice.target] * (self.random.random(len(choice.target)) < self.hinted),
        )
        augmented = self.random.random(2) < AUGMENTED
        first = self._excerpts(at["first"], augmented[0], at["begin"], width)
        second = self._excerpts(at["second"], augmented[0], at["second_begin"], width)
        emotion = self._excerpts(at["emotion"], augmented[1], at["emotion_begin"], width)
        frame = torch.arange(width, device=self.device)[None]
        prompt = torch.where((frame < at["first_frames"][:, None])[..., None], first, second)
        prompt = prompt * (frame < at["prompt_lengths"][:, None])[..., None]
        emotion = emotion * (frame < at["emotion_frames"][:, None])[..., None]
        own = at["own"].bool()
        code_width = int(self.code_width[choice.target].max())
        return GPTBatch(
            prompt=prompt,
            prompt_lengths=at["prompt_lengths"],
            emotion=torch.where(own[:, None, None], prompt, emotion),
            emotion_lengths=torch.where(own, at["prompt_lengths"], at["emotion_frames"]),
            text=self.text[at["sentence"], : int(self.text_width[choice.target].max())].long(),
            text_lengths=at["text_lengths"],
            codes=self.codes[at["target"], :code_width].long(),
            code_lengths=at["code_lengths"],
            spoken=self.spoken[at["target"], :code_width].long(),
            length_hints=at["length_hints"],
            style=at["style"],
            intensity=at["permille"] / 1000,
        )

    def _excerpts(self, utterances: Tensor, augmented: bool, begin: Tensor, width: int) -> Tensor:
        return self.semantics.embeddings(utterances, bool(augmented), begin, num_frames=width)[0]

    def _crop(self, utterances: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A random place for up to ``frames`` in each utterance: first frame and number of frames."""
        room = np.maximum(self.length[utterances] - frames, 0)
        begin = (self.random.random(len(utterances)) * (room + 1)).astype(np.int64)
        return begin, np.minimum(frames, self.length[utterances] - begin)

    def _alike(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether two utterances are spoken in the same style, about as strongly."""
        near = np.abs(self.intensity[a] - self.intensity[b]) <= MAX_INTENSITY_DIFFERENCE
        return (self.style[a] == self.style[b]) & near

    def _same_emotion(self, targets: np.ndarray) -> np.ndarray:
        """An utterance of nearly always another voice, same style, with one of the nearest intensities."""
        style = self.style[targets]
        low, high = self.style_start[style], self.style_end[style]
        reach = 4 + (high - low) // 50
        step = self.random.integers(1, reach + 1) * np.where(self.random.random(len(targets)) < 0.5, -1, 1)
        return self.by_style[np.clip(self.style_rank[targets] + step, low, high - 1)]


def upload(device: torch.device, **arrays: np.ndarray) -> dict[str, Tensor]:
    """Whole numbers ``[B]`` of a batch to the device, in one copy that the host does not wait for; all int64."""
    packed = torch.from_numpy(np.stack(list(arrays.values())).astype(np.int64, copy=False))
    if device.type == "cuda":
        packed = packed.pin_memory()
    return dict(zip(arrays, packed.to(device, non_blocking=True).unbind(), strict=True))


def _counts(ids: Tensor, lengths: np.ndarray, size: int) -> Tensor:
    inside = length_mask(torch.from_numpy(lengths).to(ids.device), ids.shape[1])
    return torch.bincount(ids[inside].long(), minlength=size)


def _multiple_of_8(length: int, limit: int) -> int:
    return min(-(-int(length) // 8) * 8, limit)


def _load_tokens(path: Path, device: torch.device) -> tuple[Tensor, Tensor, np.ndarray]:
    """Text ids of all sentences and their places among the teacher's symbols, and the numbers of ids.

    Both are int16 ``[sentences, longest]``, padded with 0 and with 32767.
    """
    with np.load(path) as arrays:
        if "places" not in arrays:
            raise ValueError(f"{path} does not say where the ids are spoken: make it anew (training/prepare_tokens.py)")
        ids, places, offsets = arrays["ids"], arrays["places"], arrays["offsets"].astype(np.int64)
    lengths = np.diff(offsets)
    tables = []
    for values, padding in ((ids, 0), (places, np.iinfo(np.int16).max)):
        table = np.full((len(lengths), int(lengths.max())), padding, np.int16)
        table[np.arange(table.shape[1]) < lengths[:, None]] = values
        tables.append(torch.from_numpy(table).to(device))
    return tables[0], tables[1], lengths


def spoken_table(data: SpeechData, places: Tensor, width: int, count: int, chunk: int = 2048) -> Tensor:
    """Which text id each code of the first ``count`` utterances speaks, int16 ``[U, width]``; -1: not known."""
    table = torch.empty(count, width, dtype=torch.int16, device=places.device)
    for begin in range(0, count, chunk):
        rows = torch.arange(begin, min(begin + chunk, count), device=places.device)
        symbol = data.symbols_at(rows, FRAME_HZ, width, PHONE_SHIFT) - 1  # without the silence at the beginning
        own = places[data.sentence[rows]]
        spoken = torch.searchsorted(own.int(), symbol.int(), right=True) - 1
        known = (own[:, :1] >= 0) & (symbol >= -1)
        table[rows] = torch.where(known, spoken.clamp(min=0), -1).short()
    return table


def code_table(semantics: Semantics, chunk: int = 2048) -> Tensor:
    """Codes of all utterances, int16 ``[U, longest]`` padded with zeros."""
    longest = int(semantics.length.max())
    table = torch.zeros(len(semantics), longest, dtype=torch.int16, device=semantics.device)
    for begin in range(0, len(semantics), chunk):
        rows = torch.arange(begin, min(begin + chunk, len(semantics)), device=semantics.device)
        codes, _ = semantics.codes(rows)
        table[rows, : codes.shape[1]] = codes.short()
    return table
