"""Generates the training data: the teacher reads planned utterances into shards.

    python -m training.generate --pack PACK --out DATA --hours 30 --processes 4 --gpus 0,1 --minutes 5

The plan follows from the seed alone: which shard holds which voice, sentence and style does not depend on the
number of processes, on the devices or on interruptions. Complete shards are kept, so a second run continues.
The first shards hold the held-out voices reading held-out sentences; then come rounds over the training voices.
"""

from __future__ import annotations

import argparse
import json
import logging
import lzma
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor

from training import teacher
from training.dataset import SAMPLE_RATE_HZ
from training.styles import Prosody, draw_prosody, draw_style
from training.voices import VoiceBank

log = logging.getLogger("training.generate")

HELDOUT_UTTERANCES = 14
ROUND_UTTERANCES = 4
STOCK_REPEATS = {"en": 3, "zh": 30}
"""A stock voice of a language reads this many times as much as a sampled one."""
MANDARIN_SHARE = 0.7
"""Of what the drawn voices read that read Mandarin at all, half of them."""
KIND_WEIGHTS = {
    "en": {"example": 0.42, "definition": 0.20, "joined": 0.27, "template": 0.07, "word": 0.04},
    "zh": {"hsk": 0.38, "joined": 0.32, "template": 0.12, "mixed": 0.10, "word": 0.08},
}
LEVEL_DB = -22.0
"""Level of the spoken frames of a neutral utterance, root mean square against full scale."""
ACTIVE_DB = -35.0
"""Frames within this of the loudest count as spoken."""
PEAK = 0.97
MAX_SPEED, MIN_SPEED = 1.45, 0.65


@dataclass(frozen=True)
class Utterance:
    """What one utterance of the plan is."""

    voice: int
    sentence: int
    style: int
    intensity: float
    prosody: Prosody
    silence_frames: tuple[int, int]  # how much silence of the teacher's is kept before and after


class Plan:
    """Which utterances a shard holds."""

    def __init__(self, sentences: list[dict], voices: list[dict], seed: int, shard_size: int) -> None:
        self.voices, self.seed, self.shard_size = voices, seed, shard_size
        self.rows: dict[tuple[bool, str, str], np.ndarray] = {}
        groups: dict[tuple[bool, str, str], list[int]] = {}
        for row, s in enumerate(sentences):
            groups.setdefault((s["heldout"], s["language"], s["kind"]), []).append(row)
        self.rows = {key: np.array(rows) for key, rows in groups.items()}
        self._utterances = self._all()
        self._made: list[list[Utterance]] = []

    def shard(self, number: int) -> list[Utterance]:
        """The utterances of a shard; there is no last one."""
        while len(self._made) <= number:
            self._made.append([next(self._utterances) for _ in range(self.shard_size)])
        return self._made[number]

    def _all(self) -> Iterator[Utterance]:
        generator = np.random.default_rng(self.seed)
        heldout = [i for i, v in enumerate(self.voices) if v["heldout"]]
        for voice in heldout:
            yield from self._readings(voice, HELDOUT_UTTERANCES, generator)
        train = [i for i, v in enumerate(self.voices) if not v["heldout"]]
        stock = [i for i in train if self.voices[i]["stock"]]
        more = [i for i in stock for _ in range(STOCK_REPEATS[self.voices[i]["languages"][0]] - 1)]
        while True:
            for voice in generator.permutation(train + more):
                yield from self._readings(int(voice), ROUND_UTTERANCES, generator)

    def _readings(self, voice: int, count: int, generator: np.random.Generator) -> Iterator[Utterance]:
        """Utterances of a voice with different sentences."""
        used: set[int] = set()
        while len(used) < count:
            sentence = self._sentence(self.voices[voice], generator)
            if sentence in used:
                continue
            used.add(sentence)
            style, intensity = draw_style(generator)
            silence = int(generator.integers(1, 7)), int(generator.integers(2, 9))
            prosody = draw_prosody(style, intensity, generator)
            yield Utterance(voice, sentence, style, intensity, prosody, silence)

    def _sentence(self, voice: dict, generator: np.random.Generator) -> int:
        languages = voice["languages"]
        language = languages[0] if len(languages) == 1 else ("zh" if generator.random() < MANDARIN_SHARE else "en")
        weights = {k: w for k, w in KIND_WEIGHTS[language].items() if (voice["heldout"], language, k) in self.rows}
        total = sum(weights.values())
        kind = generator.choice(list(weights), p=[w / total for w in weights.values()])
        return int(generator.choice(self.rows[voice["heldout"], language, str(kind)]))


class Reader:
    """Turns utterances of the plan into samples and labels on one device."""

    def __init__(self, pack: Path, bank: VoiceBank, sentences: list[dict], device: str, batch_symbols: int) -> None:
        self.device, self.bank, self.sentences = device, bank.to(device), sentences
        self.batch_symbols = batch_symbols
        self.teacher = teacher.Teacher(pack).to(device)
        self._resamplers: dict[float, torch.nn.Module] = {}

    def read(self, utterances: list[Utterance]) -> list[tuple[np.ndarray, list[int], np.ndarray]]:
        """For each utterance its int16 samples, symbol ids and the frames of each symbol."""
        order = sorted(range(len(utterances)), key=lambda i: len(self._phonemes(utterances[i])))
        results: dict[int, tuple[np.ndarray, list[int], np.ndarray]] = {}
        batch: list[int] = []
        for i in order:
            if batch and (len(batch) + 1) * len(self._phonemes(utterances[i])) > self.batch_symbols:
                results.update(zip(batch, self._read_batch([utterances[j] for j in batch]), strict=True))
                batch = []
            batch.append(i)
        results.update(zip(batch, self._read_batch([utterances[j] for j in batch]), strict=True))
        return [results[i] for i in range(len(utterances))]

    def _phonemes(self, utterance: Utterance) -> str:
        return self.sentences[utterance.sentence]["phonemes"]

    def _pitch(self, utterance: Utterance) -> float:
        return self.bank.voices[utterance.voice].pitch

    def _read_batch(self, batch: list[Utterance]) -> Iterator[tuple[np.ndarray, list[int], np.ndarray]]:
        phonemes = [self._phonemes(u) for u in batch]
        speed = [np.clip(u.prosody.speed, MIN_SPEED, MAX_SPEED) / self._pitch(u) for u in batch]
        columns = [speed, *([getattr(u.prosody, n) for u in batch] for n in ("f0_scale", "f0_range", "energy"))]
        languages = [self.sentences[u.sentence].get("language", "en") for u in batch]
        asked = list(zip((u.voice for u in batch), map(len, phonemes), languages, strict=True))
        speech = self.teacher.synthesise(
            phonemes,
            torch.stack([self.bank.style(*voice) for voice in asked]),
            *torch.tensor(np.array(columns, np.float32)).to(self.device),
            register=torch.stack([self.bank.style(voice, symbols) for voice, symbols, _ in asked]),
        )
        frames = speech.samples[:, : int(speech.frames.max()) * teacher.FRAME_SAMPLES]
        power = frames.unflatten(1, (-1, teacher.FRAME_SAMPLES)).square().mean(-1).cpu().numpy()
        waves, durations = [], []
        for i, utterance in enumerate(batch):
            count = int(speech.frames[i])
            first, last, level = spoken_part(power[i, :count])
            counts = speech.durations[i].numpy().copy()
            lead = max(0, min(first - utterance.silence_frames[0], counts[0]))
            tail = max(0, min(count - last - utterance.silence_frames[1], counts[-1]))
            counts[0] -= lead
            counts[-1] -= tail
            wave = speech.samples[i, lead * teacher.FRAME_SAMPLES : (count - tail) * teacher.FRAME_SAMPLES]
            gain = 10 ** ((LEVEL_DB + utterance.prosody.level_db) / 20) / max(level, 1e-5)
            waves.append(self._finish(wave, self._pitch(utterance), gain))
            ends = np.round(np.cumsum(counts) / self._pitch(utterance)).astype(np.int64)
            durations.append(np.diff(ends, prepend=0))
        samples = torch.cat(waves).cpu().numpy()
        ends = np.cumsum([len(w) for w in waves])
        ids = [[0, *self.teacher.symbol_ids(p), 0] for p in phonemes]
        return zip(np.split(samples, ends[:-1]), ids, durations, strict=True)

    def _finish(self, wave: Tensor, pitch: float, gain: float) -> Tensor:
        """Resamples, plays at the voice's rate, sets the level and rounds to int16."""
        if pitch not in self._resamplers:
            from torchaudio.transforms import Resample

            source_hz = round(teacher.SAMPLE_RATE_HZ * pitch / 150) * 150
            self._resamplers[pitch] = Resample(source_hz, SAMPLE_RATE_HZ).to(self.device)
        wave = self._resamplers[pitch](wave) * gain
        wave = wave * (PEAK / wave.abs().max().clamp(min=PEAK))
        return (wave * 32767).round().to(torch.int16)


def spoken_part(power: np.ndarray) -> tuple[int, int, float]:
    """First spoken frame, the one after the last, and the root mean square of those spoken.

    Args:
        power: Mean square of each frame, ``[F]``.
    """
    spoken = power >= power.max() * 10 ** (ACTIVE_DB / 10)
    at = np.flatnonzero(spoken)
    return int(at[0]), int(at[-1]) + 1, float(np.sqrt(power[spoken].mean()))


def write_shard(
    stem: Path, utterances: list[Utterance], sentences: list[dict], read: list[tuple[np.ndarray, list[int], np.ndarray]]
) -> float:
    """Writes samples, labels and last the mark of completeness; returns the seconds of speech."""
    lengths = np.array([len(wave) for wave, _, _ in read], np.int64)
    languages = [("en", "zh").index(sentences[u.sentence]["language"]) for u in utterances]
    np.concatenate([wave for wave, _, _ in read]).astype("<i2").tofile(stem.with_suffix(".pcm"))
    np.savez(
        stem.with_suffix(".npz"),
        offset=np.cumsum(lengths) - lengths,
        length=lengths,
        voice=np.array([u.voice for u in utterances], np.int32),
        sentence=np.array([u.sentence for u in utterances], np.int32),
        language=np.array(languages, np.int8),
        style=np.array([u.style for u in utterances], np.int8),
        intensity=np.array([u.intensity for u in utterances], np.float32),
        phone_ids=np.concatenate([ids for _, ids, _ in read]).astype(np.int16),
        phone_frames=np.concatenate([frames for _, _, frames in read]).astype(np.int16),
        phone_offset=np.cumsum([0, *(len(ids) for _, ids, _ in read)]).astype(np.int64),
    )
    seconds = float(lengths.sum()) / SAMPLE_RATE_HZ
    mark = stem.with_suffix(".tmp")
    mark.write_text(json.dumps({"utterances": len(utterances), "seconds": round(seconds, 2)}))
    mark.rename(stem.with_suffix(".json"))
    return seconds


def load_inputs(args: argparse.Namespace) -> tuple[list[dict], VoiceBank, list[dict]]:
    """Sentences, voices and the table of those that are used."""
    sentences = json.loads(lzma.decompress((args.pack / "sentences.json.xz").read_bytes()))
    bank = VoiceBank(args.pack / "voices.npz", args.seed)
    if args.voices:
        bank = subset(bank, args.voices)
    return sentences, bank, bank.table()


def subset(bank: VoiceBank, count: int) -> VoiceBank:
    """A few voices of each kind, a quarter of them held out, for trying things out."""
    groups = [[], [], [], []]
    for i, voice in enumerate(bank.voices):
        groups[2 * voice.heldout + (not voice.stock)].append(i)
    heldout, train = count // 4, count - count // 4
    sizes = [train // 2, train - train // 2, heldout - heldout // 2, heldout // 2]
    chosen = [
        group[at]
        for group, size in zip(groups, sizes, strict=True)
        for at in np.linspace(0, len(group) - 1, size, dtype=int)
    ]
    bank.voices = [bank.voices[i] for i in sorted(chosen)]
    return bank


def work(rank: int, args: argparse.Namespace, device: str, counter, seconds, deadline: float) -> None:
    """One process: takes the next shard that is missing until there is enough speech or no time."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    sentences, bank, voices = load_inputs(args)
    plan = Plan(sentences, voices, args.seed, args.shard_size)
    reader = Reader(args.pack, bank, sentences, device, args.batch_symbols)
    while time.time() < deadline and seconds.value < args.hours * 3600:
        with counter.get_lock():
            number = counter.value
            counter.value += 1
        stem = args.out / f"shard_{number:05d}"
        mark = stem.with_suffix(".json")
        if mark.exists():
            made = json.loads(mark.read_text())["seconds"]
        else:
            torch.manual_seed(args.seed * 1_000_003 + number)
            utterances = plan.shard(number)
            made = write_shard(stem, utterances, sentences, reader.read(utterances))
        with seconds.get_lock():
            seconds.value += made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, default=Path(".data/pack"), help="teacher, voices and sentences")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hours", type=float, required=True, help="stop with this much speech")
    parser.add_argument("--minutes", type=float, default=1e6, help="start no shard after this long")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--gpus", default="0", help="devices to spread the processes over")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--voices", type=int, help="use only so many voices")
    parser.add_argument("--shard-size", type=int, default=200, help="utterances a shard")
    parser.add_argument("--batch-symbols", type=int, default=6000, help="symbols a call with padding; 0: one utterance")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    begin = time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    sentences, _, voices = load_inputs(args)
    for name, table in (("sentences", sentences), ("voices", voices)):
        path, content = args.out / f"{name}.json", json.dumps(table, ensure_ascii=False)
        if path.exists() and path.read_text(encoding="utf-8") != content:
            raise SystemExit(f"{path} is of other data: give another folder")
        path.write_text(content, encoding="utf-8")

    context = multiprocessing.get_context("spawn")
    counter, seconds = context.Value("q", 0), context.Value("d", 0.0)
    gpus = args.gpus.split(",")
    workers = []
    for rank in range(args.processes):
        device = f"cuda:{gpus[rank % len(gpus)]}" if args.device == "cuda" else "cpu"
        arguments = (rank, args, device, counter, seconds, begin + 60 * args.minutes)
        workers.append(context.Process(target=work, args=arguments))
        workers[-1].start()
    first = None
    while any(worker.is_alive() for worker in workers):
        time.sleep(1)
        if first is None and seconds.value:
            first = time.time(), seconds.value
        if first and int(time.time() - begin) % 10 == 0:
            rate = (seconds.value - first[1]) / max(1.0, time.time() - first[0])
            log.info("%.2f h of speech in %.0f s, %.0f s a second", seconds.value / 3600, time.time() - begin, rate)
    log.info("%.2f h of speech in %.0f s", seconds.value / 3600, time.time() - begin)
    if any(worker.exitcode for worker in workers):
        raise SystemExit(f"exit codes {[worker.exitcode for worker in workers]}")


if __name__ == "__main__":
    main()
