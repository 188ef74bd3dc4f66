"""Batches for the language model: who speaks (prompt), how (emotion prompt), what (text), and the codes of it.

All choices are made on the host in numpy, so that every shape is known there and the device is never waited for; the
data itself stays on the device and is gathered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from indextts.config import GPTConfig
from training.dataset import SpeechData
from training.semantics import Semantics

FRAME_HZ = 50
PROMPT_S = (2.0, 10.0)
MIN_PROMPT_FRAMES = 40
SAME_STYLE_PROMPT = 0.5  # how often a prompt in the style of the target is preferred
TWO_UTTERANCE_PROMPT = 0.5
OWN_EMOTION = 0.5  # how often the emotion is heard in the speaker's prompt, where that has the style of the target
TARGET_EMOTION = 0.08  # how often it is heard in the target itself
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
        targets: ``[B]`` which utterances these are.
    """

    prompt: Tensor
    prompt_lengths: Tensor
    emotion: Tensor
    emotion_lengths: Tensor
    text: Tensor
    text_lengths: Tensor
    codes: Tensor
    code_lengths: Tensor
    targets: np.ndarray


@dataclass(frozen=True)
class Choice:
    """Which utterances a batch is made of, all ``[B]``. ``second`` continues the prompt where ``two`` is true."""

    target: np.ndarray
    first: np.ndarray
    second: np.ndarray
    two: np.ndarray
    emotion: np.ndarray
    own_emotion: np.ndarray


class GPTBatches:
    """Draws prompts for targets and gathers batches.

    Attributes:
        usable: Utterances that can be targets: they fit the model, and their voice has said something else.
        left_out: Number of utterances that cannot.
    """

    def __init__(
        self, data: SpeechData, semantics: Semantics, tokens: Path, config: GPTConfig, device: torch.device, seed: int
    ) -> None:
        semantics.check(data)
        self.semantics, self.config, self.device = semantics, config, device
        self.random = np.random.default_rng(seed)
        count = len(semantics)
        self.voice, self.sentence, self.style = (
            getattr(data, name)[:count].cpu().numpy() for name in ("voice", "sentence", "style")
        )
        self.intensity = data.intensity[:count].cpu().numpy()
        self.length = semantics.length.cpu().numpy()
        self.text, self.text_length = _load_tokens(tokens, device)
        if len(self.text_length) != len(data.sentences):
            raise ValueError(f"{tokens} has {len(self.text_length)} sentences, the data {len(data.sentences)}")
        self.codes = code_table(semantics)

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

    def row_tokens(self, targets: np.ndarray) -> np.ndarray:
        """Length of the sequence that the model reads for each target."""
        fixed = self.config.condition_num_latent + 2 + 2 + 1
        return self.length[targets] + self.text_length[self.sentence[targets]] + fixed

    def epoch(self, batch_tokens: int) -> Iterator[np.ndarray]:
        """All usable utterances once, as targets of batches of up to ``batch_tokens``, padding included.

        A batch holds utterances of similar length; the batches come in random order.
        """
        shuffled = self.random.permutation(self.usable)
        noisy_length = self.row_tokens(shuffled) * self.random.uniform(0.95, 1.05, len(shuffled))
        by_length = shuffled[np.argsort(noisy_length)[::-1]]
        tokens = self.row_tokens(by_length)
        batches, begin = [], 0
        while begin < len(by_length):
            rows = max(1, int(batch_tokens // tokens[begin : begin + 8].max()))
            batches.append(by_length[begin : begin + rows])
            begin += rows
        for index in self.random.permutation(len(batches)):
            yield batches[index]

    def choose(self, targets: np.ndarray) -> Choice:
        """Draw a prompt and an emotion prompt for each target; targets that find no prompt are dropped."""
        random, count = self.random, self.voice_count[self.voice[targets]]
        place = (random.random((CANDIDATES, len(targets))) * count).astype(np.int64)
        candidates = self.by_voice[self.voice_start[self.voice[targets]] + place]
        valid = self.sentence[candidates] != self.sentence[targets]
        enough = self.length[candidates] >= MIN_PROMPT_FRAMES
        wanted = random.random(len(targets)) < SAME_STYLE_PROMPT
        quality = 4 * valid + 2 * enough + (wanted & self._alike(candidates, targets))
        order = np.argsort(-quality, axis=0, kind="stable")[:2]
        candidates, valid = (np.take_along_axis(x, order, 0) for x in (candidates, valid))

        found = valid[0]
        targets, (first, second) = targets[found], candidates[:, found]
        two = valid[1, found] & self._alike(first, second) & (random.random(len(first)) < TWO_UTTERANCE_PROMPT)
        own = self._alike(first, targets) & (random.random(len(first)) < OWN_EMOTION)
        itself = random.random(len(first)) < TARGET_EMOTION
        emotion = np.where(own, first, np.where(itself, targets, self._same_emotion(targets)))
        return Choice(targets, first, second, two, emotion, own)

    def gather(self, choice: Choice) -> GPTBatch:
        """Cut the prompts at random and put the batch together."""
        frames = int(self.random.integers(int(PROMPT_S[0] * FRAME_HZ), int(PROMPT_S[1] * FRAME_HZ) + 1))
        prompt, prompt_lengths = self._prompt(choice, frames)
        emotion, emotion_lengths = self._excerpts(choice.emotion, frames)
        own = self._to_device(choice.own_emotion)
        width = max(prompt.shape[1], emotion.shape[1])
        prompt, emotion = (torch.nn.functional.pad(x, (0, 0, 0, width - x.shape[1])) for x in (prompt, emotion))
        sentence = self.sentence[choice.target]
        text_lengths, code_lengths = self.text_length[sentence], self.length[choice.target]
        return GPTBatch(
            prompt=prompt,
            prompt_lengths=prompt_lengths,
            emotion=torch.where(own[:, None, None], prompt, emotion),
            emotion_lengths=torch.where(own, prompt_lengths, emotion_lengths),
            text=self.text[self._to_device(sentence), : int(text_lengths.max())].long(),
            text_lengths=self._to_device(text_lengths),
            codes=self.codes[self._to_device(choice.target), : int(code_lengths.max())].long(),
            code_lengths=self._to_device(code_lengths),
            targets=choice.target,
        )

    def _prompt(self, choice: Choice, frames: int) -> tuple[Tensor, Tensor]:
        """An excerpt of the first utterance, and where there are two, one of the second behind it."""
        first_frames = np.where(choice.two, frames // 2, frames)
        begin, first_frames = self._crop(choice.first, first_frames)
        second_begin, second_frames = self._crop(choice.second, (frames - first_frames) * choice.two)
        lengths = first_frames + second_frames
        augmented, width = bool(self.random.random() < AUGMENTED), int(lengths.max())
        first, _ = self.semantics.embeddings(
            self._to_device(choice.first), augmented, self._to_device(begin), num_frames=width
        )
        second, _ = self.semantics.embeddings(
            self._to_device(choice.second), augmented, self._to_device(second_begin - first_frames), num_frames=width
        )
        frame = torch.arange(width, device=self.device)[None]
        joined = torch.where((frame < self._to_device(first_frames)[:, None])[..., None], first, second)
        inside = frame < self._to_device(lengths)[:, None]
        return joined * inside[..., None], self._to_device(lengths)

    def _excerpts(self, utterances: np.ndarray, frames: int) -> tuple[Tensor, Tensor]:
        begin, lengths = self._crop(utterances, np.full(len(utterances), frames))
        width = int(lengths.max())
        augmented = bool(self.random.random() < AUGMENTED)
        embeddings, _ = self.semantics.embeddings(
            self._to_device(utterances), augmented, self._to_device(begin), num_frames=width
        )
        return embeddings, self._to_device(lengths)

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
        """An utterance of any voice, same style, with one of the nearest intensities."""
        style = self.style[targets]
        low, high = self.style_start[style], self.style_end[style]
        reach = 4 + (high - low) // 50
        step = self.random.integers(1, reach + 1) * np.where(self.random.random(len(targets)) < 0.5, -1, 1)
        return self.by_style[np.clip(self.style_rank[targets] + step, low, high - 1)]

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)


def _load_tokens(path: Path, device: torch.device) -> tuple[Tensor, np.ndarray]:
    """Text ids of all sentences, int16 ``[sentences, longest]`` padded with zeros, and their lengths."""
    with np.load(path) as arrays:
        ids, offsets = arrays["ids"], arrays["offsets"].astype(np.int64)
    lengths = np.diff(offsets)
    table = np.zeros((len(lengths), int(lengths.max())), np.int16)
    table[np.arange(table.shape[1]) < lengths[:, None]] = ids
    return torch.from_numpy(table).to(device), lengths


def code_table(semantics: Semantics, chunk: int = 2048) -> Tensor:
    """Codes of all utterances, int16 ``[U, longest]`` padded with zeros."""
    longest = int(semantics.length.max())
    table = torch.zeros(len(semantics), longest, dtype=torch.int16, device=semantics.device)
    for begin in range(0, len(semantics), chunk):
        rows = torch.arange(begin, min(begin + chunk, len(semantics)), device=semantics.device)
        codes, _ = semantics.codes(rows)
        table[rows, : codes.shape[1]] = codes.short()
    return table
