"""Batches for the flow: a prompt, the codes of what follows it, and the mel that should come out.

Prompts are what they are at inference: another recording of the voice, with its own codes. Half of the time the
prompt is the beginning of the target's own recording, from which timbre and level can be copied most exactly.
All choices are made on the host in numpy, so that every shape is known there and the device is never waited for.
There are few shapes and each recurs: a training step is captured once for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from indextts.audio import log_mel
from indextts.config import S2MelConfig
from indextts.models.conformer import length_mask
from indextts.models.semantic_codec import SemanticCodec
from training.augment import augment
from training.dataset import SAMPLE_RATE_HZ, SpeechData
from training.gpt_batches import code_table, upload
from training.semantics import Semantics

CODE_HZ = 50
SAMPLES_PER_CODE = SAMPLE_RATE_HZ / CODE_HZ
MIN_CODES = 25  # of a prompt and of a target
MAX_TARGET_CODES = 750
SHORTEST_PROMPT_S = 1.5
PROMPTS_WANTED = 1.3  # prompts are drawn up to this multiple of what the model is shown of them, and cut to that
OWN_PROMPT = 0.5  # how often the prompt is the beginning of the target's own recording
OWN_PROMPT_SHARE = (0.1, 0.6)
CANDIDATES = 4  # prompts looked at for each target
BANDS = 10  # widths of batches
WIDTH_MULTIPLE = 64  # of the widths, in frames: attention kernels like them
ROWS_TO_PLAN_WITH = 20000


@dataclass(frozen=True)
class Rows:
    """Which excerpts a batch is made of, all int64 ``[B]``: utterances, first codes and numbers of codes."""

    target: np.ndarray
    target_begin: np.ndarray
    target_codes: np.ndarray
    prompt: np.ndarray
    prompt_begin: np.ndarray
    prompt_codes: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: np.ndarray) -> Rows:
        """Some of the rows, by number or by mask."""
        return Rows(*(getattr(self, field.name)[index] for field in fields(self)))

    def resized(self, count: int) -> Rows:
        """As many rows as wanted: the first ones, or some of them again."""
        return self.take(np.resize(np.arange(len(self)), count))


@dataclass(frozen=True)
class S2MelBatch:
    """One step of training; frames hold the prompt, then the target, then padding.

    Attributes:
        prompt_embeddings: ``[B, T, D]`` quantised embeddings of the prompts, with ``prompt_codes [B]`` valid ones.
        target_embeddings: ``[B, M, D]`` of the targets, with ``target_codes [B]`` valid ones.
        prompt_mel: ``[B, n_mels, F]``, zero outside the prompt.
        mel: ``[B, n_mels, F]``, zero outside the target.
        prompt_lens: ``[B]`` mel frames of the prompts; ``target_lens [B]`` of the targets.
        style: ``[B, S]`` of the prompts.
        prompt_frames: width that holds all prompts, as a number on the host; ``target_frames`` likewise.
    """

    prompt_embeddings: Tensor
    prompt_codes: Tensor
    target_embeddings: Tensor
    target_codes: Tensor
    prompt_mel: Tensor
    mel: Tensor
    prompt_lens: Tensor
    target_lens: Tensor
    style: Tensor
    prompt_frames: int
    target_frames: int

    def tensors(self) -> tuple[Tensor, ...]:
        """All but the widths, in the order of the fields."""
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(value for value in values if isinstance(value, Tensor))

    @property
    def widths(self) -> dict[str, int]:
        return {"prompt_frames": self.prompt_frames, "target_frames": self.target_frames}

    @property
    def x_lens(self) -> Tensor:
        return self.prompt_lens + self.target_lens

    @property
    def speech(self) -> Tensor:
        """Bool ``[B, 1, F]``: the frames of the targets."""
        frames = self.mel.shape[2]
        return (length_mask(self.x_lens, frames) & ~length_mask(self.prompt_lens, frames))[:, None]


class MelStore:
    """Log-mels of all utterances, computed once: half precision ``[frames, n_mels]``, back to back."""

    def __init__(self, data: SpeechData, count: int, config: S2MelConfig, batch_s: float = 2000.0) -> None:
        self.config = config.preprocess_params.spect_params
        samples = data.num_samples(range(count)).cpu().numpy()
        self.length = samples // self.config.hop_length
        self.offset = np.cumsum(self.length) - self.length
        self.frames = torch.zeros(int(self.length.sum()), self.config.n_mels, dtype=torch.float16, device=data.device)
        order = np.argsort(-samples)
        begin = 0
        while begin < count:
            rows = order[begin : begin + max(1, int(batch_s * SAMPLE_RATE_HZ / samples[order[begin]]))]
            begin += len(rows)
            mel = log_mel(data.wave(rows), self.config).transpose(1, 2)
            valid = length_mask(torch.from_numpy(self.length[rows]).to(data.device), mel.shape[1])
            first = torch.from_numpy(self.offset[rows]).to(data.device)[:, None]
            at = first + torch.arange(mel.shape[1], device=data.device)
            self.frames[at[valid]] = mel[valid].half()


class S2MelBatches:
    """Draws prompts for targets and gathers batches.

    Attributes:
        usable: utterances that can be targets.
        embedding: ``[codebook_size, D]``, the quantised embedding of every code.
        widths: frames of the batches, rising, int64 ``[BANDS]`` at most; the last is enough for any row.
    """

    def __init__(
        self,
        data: SpeechData,
        semantics: Semantics,
        styles: Tensor,
        codec: SemanticCodec,
        config: S2MelConfig,
        seed: int,
    ) -> None:
        semantics.check(data)
        if len(styles) < len(semantics):
            raise ValueError(f"{len(styles)} style vectors for {len(semantics)} utterances")
        self.data, self.semantics, self.styles, self.codec = data, semantics, styles, codec
        self.config, self.device = config, data.device
        count = len(semantics)
        self.length = semantics.length.cpu().numpy()
        self.codes = code_table(semantics)
        with torch.no_grad():
            every_code = torch.arange(semantics.codebook_size, device=self.device)
            self.embedding = codec.vq2emb(every_code[None])[0].T.contiguous()
        self.mel = MelStore(data, count, config)
        self.mels_per_code = SAMPLES_PER_CODE / config.preprocess_params.spect_params.hop_length
        self.voice = data.voice[:count].cpu().numpy()
        self.by_voice = np.argsort(self.voice, kind="stable")
        self.rank = np.empty(count, np.int64)
        self.voice_count = np.bincount(self.voice)
        self.voice_start = np.cumsum(self.voice_count) - self.voice_count
        self.rank[self.by_voice] = np.arange(count) - self.voice_start[self.voice[self.by_voice]]
        long_enough = self.length >= MIN_CODES
        self.usable = np.flatnonzero(long_enough & (self.voice_count[self.voice] > 1))
        if not len(self.usable):
            raise ValueError("no utterance can be trained on: too short, or alone in its voice")
        longest = min(int(config.prompt_s * CODE_HZ), int(self.length.max()))
        self.longest_prompt_codes = max(MIN_CODES, longest)
        self.seed(0)
        self.widths = self._plan_widths()
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Draw from here on as a run with this seed does."""
        self.random = np.random.default_rng(seed)
        self.generator = torch.Generator(self.device).manual_seed(seed)

    def epoch(self, batch_frames: int) -> Iterator[Rows]:
        """All usable utterances once, in batches of up to ``batch_frames``, prompts and padding included.

        The rows of a batch share one of the ``widths``, and all batches of a width have the same number of rows: the
        last one is filled up with rows that are in the epoch already. The batches come in random order.
        """
        rows = self.draw(self.random.permutation(self.usable))
        widths, batches = self._width(rows), []
        for width in np.unique(widths):
            members, size = np.flatnonzero(widths == width), max(1, batch_frames // int(width))
            count = -(-len(members) // size)
            batches += np.split(np.resize(members, count * size), count)
        for index in self.random.permutation(len(batches)):
            yield rows.take(batches[index])

    def draw(self, targets: np.ndarray) -> Rows:
        """A prompt for each target, and which part of a long target to take."""
        random, length = self.random, self.length[targets]
        room = np.maximum(length - MAX_TARGET_CODES, 0)
        begin = (random.random(len(targets)) * (room + 1)).astype(np.int64)
        codes = np.minimum(length - begin, MAX_TARGET_CODES)
        other = self._other_utterance(targets)
        # Most recordings are longer than what the model is shown of them, so that this length occurs often.
        wanted_s = random.uniform(SHORTEST_PROMPT_S, PROMPTS_WANTED * self.config.prompt_s, len(targets))
        rows = Rows(targets, begin, codes, other, *self._crop(other, wanted_s))

        split = (random.uniform(*OWN_PROMPT_SHARE, len(targets)) * codes).astype(np.int64)
        split = np.clip(split, MIN_CODES, self.longest_prompt_codes)
        own = (codes - split >= MIN_CODES) & (random.random(len(targets)) < OWN_PROMPT)
        own_rows = Rows(targets, begin + split, codes - split, targets, begin, split)
        return Rows(*(np.where(own, getattr(own_rows, f.name), getattr(rows, f.name)) for f in fields(Rows)))

    def draw_others(self, targets: np.ndarray, prompt_s: float) -> Rows:
        """Whole targets behind prompts of ``prompt_s`` seconds, shorter where the other recording is."""
        other = self._other_utterance(targets)
        codes = np.minimum(self.length[targets], MAX_TARGET_CODES)
        return Rows(targets, np.zeros_like(targets), codes, other, *self._crop(other, np.full(len(targets), prompt_s)))

    def total_frames(self, rows: Rows) -> np.ndarray:
        """Mel frames of prompt and target together, at most."""
        return self._frames_heard(rows.prompt_codes) + self._target_frames(rows.target_codes)

    def gather(self, rows: Rows, degraded: bool = False) -> S2MelBatch:
        """Put a batch together; ``degraded`` prompts are as if recorded with a bad microphone in a real room.

        All widths follow from that of the batch, so that few shapes occur and each many times.
        """
        prompt_lens, target_lens = self._prompt_frames(rows), self._target_frames(rows.target_codes)
        width = int(self._width(rows).max())
        prompt_frames = min(width, int(_padded(self._frames_heard(np.array(self.longest_prompt_codes)))))
        first, begin = self.mel.offset, self._first_frame
        at = upload(
            self.device,
            **{field.name: getattr(rows, field.name) for field in fields(Rows)},
            prompt_lens=prompt_lens,
            target_lens=target_lens,
            prompt_first=first[rows.prompt] + begin(rows.prompt_begin),
            prompt_last=first[rows.prompt] + self.mel.length[rows.prompt] - 1,
            target_first=first[rows.target] + begin(rows.target_begin),
            target_last=first[rows.target] + self.mel.length[rows.target] - 1,
            prompt_sample=begin(rows.prompt_begin) * self.mel.config.hop_length,
        )
        prompt_width = min(self._codes_within(prompt_frames), self.longest_prompt_codes)
        if degraded:
            heard, _ = self.semantics.embeddings(at["prompt"], True, at["prompt_begin"], prompt_width)
            with torch.no_grad():
                _, prompt_embeddings = self.codec.quantize(heard)
            prompt_mel = self._degraded_mel(at, prompt_frames)
        else:
            prompt_embeddings = self._embeddings(at["prompt"], at["prompt_begin"], prompt_width)
            prompt_mel = self._mel(at, "prompt", torch.zeros_like(at["prompt_lens"]), prompt_frames)
        return S2MelBatch(
            prompt_embeddings=prompt_embeddings,
            prompt_codes=at["prompt_codes"],
            target_embeddings=self._embeddings(at["target"], at["target_begin"], self.target_width(rows)),
            target_codes=at["target_codes"],
            prompt_mel=torch.nn.functional.pad(prompt_mel, (0, width - prompt_frames)),
            mel=self._mel(at, "target", at["prompt_lens"], width),
            prompt_lens=at["prompt_lens"],
            target_lens=at["target_lens"],
            style=self.styles[at["prompt"]],
            prompt_frames=prompt_frames,
            target_frames=width,
        )

    def target_width(self, rows: Rows) -> int:
        """How many codes the targets of a batch are padded to; follows from the width of the batch."""
        return min(self._codes_within(int(self._width(rows).max())), MAX_TARGET_CODES)

    def _codes_within(self, frames: int) -> int:
        """No more codes than these, of prompt or target, become so many frames."""
        return int((frames + 1) / min(self.mels_per_code, self.config.frames_per_code)) + 1

    def _frames_heard(self, codes: np.ndarray) -> np.ndarray:
        """Mel frames of a recording in the time of so many codes."""
        return (codes * self.mels_per_code).astype(np.int64)

    def _prompt_frames(self, rows: Rows) -> np.ndarray:
        """As many mel frames as the recording has in that time."""
        left = self.mel.length[rows.prompt] - self._first_frame(rows.prompt_begin)
        return np.minimum(self._frames_heard(rows.prompt_codes), left)

    def _target_frames(self, codes: np.ndarray) -> np.ndarray:
        """As many mel frames as inference makes of so many codes (``S2Mel.target_frames``)."""
        return (codes.astype(np.float32) * np.float32(self.config.frames_per_code)).astype(np.int64)

    def _first_frame(self, begin_codes: np.ndarray) -> np.ndarray:
        return np.rint(begin_codes * self.mels_per_code).astype(np.int64)

    def _plan_widths(self) -> np.ndarray:
        """Widths that all stand for about as many frames of an epoch; the last one is enough for any row."""
        rows = self.draw(np.resize(self.usable, max(len(self.usable), ROWS_TO_PLAN_WITH)))
        frames = np.sort(self.total_frames(rows))
        share = frames.cumsum() / frames.sum()
        inner = frames[np.searchsorted(share, np.arange(1, BANDS) / BANDS)]
        target_codes = np.array(min(MAX_TARGET_CODES, int(self.length.max())))
        largest = self._frames_heard(np.array(self.longest_prompt_codes)) + self._target_frames(target_codes)
        return np.unique(_padded(np.append(inner, largest)))

    def _width(self, rows: Rows) -> np.ndarray:
        """The smallest of the widths for each row."""
        return self.widths[np.searchsorted(self.widths, self.total_frames(rows))]

    def _other_utterance(self, targets: np.ndarray) -> np.ndarray:
        """Another recording of each target's voice, rather a long enough one."""
        voice = self.voice[targets]
        count = self.voice_count[voice]
        step = 1 + (self.random.random((CANDIDATES, len(targets))) * (count - 1)).astype(np.int64)
        candidates = self.by_voice[self.voice_start[voice] + (self.rank[targets] + step) % count]
        enough = self.length[candidates] >= SHORTEST_PROMPT_S * CODE_HZ
        return candidates[enough.argmax(0), np.arange(len(targets))]

    def _crop(self, utterances: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A random place for a prompt: first code and number of codes."""
        length = self.length[utterances]
        codes = np.minimum((seconds * CODE_HZ).astype(np.int64), np.minimum(length, self.longest_prompt_codes))
        return (self.random.random(len(utterances)) * (length - codes + 1)).astype(np.int64), codes

    def _embeddings(self, utterances: Tensor, begin: Tensor, count: int) -> Tensor:
        """Quantised embeddings ``[B, count, D]``; what lies beyond an excerpt has no meaning."""
        at = begin[:, None] + torch.arange(count, device=self.device)
        codes = self.codes[utterances[:, None], at.clamp(max=self.codes.shape[1] - 1)].long()
        return torch.nn.functional.embedding(codes, self.embedding)

    def _mel(self, at: dict[str, Tensor], kind: str, shift: Tensor, width: int) -> Tensor:
        """Mels of the excerpts, placed ``shift [B]`` frames into rows of ``width`` frames: ``[B, n_mels, width]``."""
        frame = torch.arange(width, device=self.device) - shift[:, None]
        inside = (frame >= 0) & (frame < at[f"{kind}_lens"][:, None])
        place = torch.minimum(at[f"{kind}_first"][:, None] + frame.clamp(min=0), at[f"{kind}_last"][:, None])
        return (self.mel.frames[place].float() * inside[..., None]).transpose(1, 2)

    def _degraded_mel(self, at: dict[str, Tensor], width: int) -> Tensor:
        """Mels of degraded prompts, ``[B, n_mels, width]``."""
        config = self.mel.config
        # Four frames at least, since the spectrogram mirrors the edges of the recording.
        wave = self.data.wave(at["prompt"], at["prompt_sample"], max(width, 4) * config.hop_length)
        mel = log_mel(augment(wave, SAMPLE_RATE_HZ, self.generator), config)[..., :width]
        return mel * length_mask(at["prompt_lens"], width)[:, None]


def _padded(frames: np.ndarray) -> np.ndarray:
    return -(-frames // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
