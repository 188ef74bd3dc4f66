"""Measures a voice model: does it say the words, in the voice of the prompt, and does it sound natural?

    python -m training.evaluate --sentences 40 --voices 8 --workers 2 --out OUT
    python -m training.evaluate --language zh --sentences 100 --out OUT
    python -m training.evaluate --what emotions --sentences 20 --out OUT

Sentences and voices that had no part in training go through the public engine; the judges of
``training/judges.py`` listen to the result. ``OUT`` gets the recordings, ``report.md``, ``report.json`` and the worst
cases in ``worst/``. ``--audio DIR`` judges recordings that exist: a folder with ``clips.json``, a list of
``{"file", "text", "voice"}``, such as an earlier ``OUT`` or the prompts themselves.

``--what`` chooses what is compared (``training/trials.py``): ``words``; ``emotions`` against calm and ``intensity`` by
weight; ``transfer`` of the manner of a recording; ``long``, a minute in one go; ``rough``, prompts from bad microphones
and rooms; ``duration``, wanted lengths. With ``--prompts`` of fifty voices the share that is nearest to its own is that
of fifty (``training/make_prompts.py`` makes them).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from indextts.config import SamplingParams
from indextts.emotion import EMOTIONS
from indextts.types import Emotion, FromAudio, FromVector, FromVoice, SynthesisRequest, VoicePrompt
from training import report
from training.clips import Clip, read_clips, write_clips
from training.findings import FINDINGS
from training.report import Verdict
from training.trials import HERE, TRIALS

WORST = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


# ------------------------------------------------------------------------------------------------- synthesis


class Speaker:
    """Says one sentence in one voice; keeps the engine between calls."""

    def __init__(self, options: argparse.Namespace) -> None:
        from indextts.config import EngineConfig
        from indextts.engine import Engine

        config = EngineConfig(
            model_dir=options.model_dir, config_path=options.config, device=options.device, qwen_emotion=False
        )
        self.engine = Engine.load(config)
        self.prompts, self.out, self.repair = options.prompts, options.out, options.repair
        self.sampling = replace(self.engine.sampling_defaults, **dict(options.sampling))

    def __call__(self, clip: Clip) -> Clip:
        from indextts.encoding import write_wav

        prompts = {c.voice: self.prompts / c.file for c in read_clips(self.prompts)}
        voice = VoicePrompt.from_path(clip.prompt or prompts[clip.voice])
        request = SynthesisRequest(
            clip.text,
            voice,
            emotion_of(clip),
            self.sampling,
            seed=clip.seed,
            duration_factor=clip.duration_factor,
            repair=self.repair,
        )
        result = self.engine.synthesize(request)
        write_wav(self.out / clip.file, result.samples, result.sample_rate_hz)
        return replace(clip, synthesis_s=result.timings.total_s, warnings=result.warnings)


def emotion_of(clip: Clip) -> Emotion:
    """How a clip is to be said."""
    if not clip.emotion:
        return FromVoice()
    if clip.emotion not in EMOTIONS:
        return FromAudio(VoicePrompt.from_path(clip.emotion), clip.weight)
    return FromVector(tuple(clip.weight * (name == clip.emotion) for name in EMOTIONS))


# ------------------------------------------------------------------------------------------------- judgement


class Jury:
    """Listens to one recording with all judges."""

    def __init__(self, options: argparse.Namespace) -> None:
        from training import judges

        folder, self.read = options.judges, judges.read
        self.folder_of_judges, self.judges, self.words = folder, judges, {}
        self.naturalness = judges.Naturalness()
        self.voices = [judges.VoiceCAMPPlus(folder), judges.VoiceGE2E()]
        self.folder: Path = options.audio or options.out
        prompts = read_clips(options.prompts)
        self.prompt_names = [clip.voice for clip in prompts]
        waves = [self.read(options.prompts / clip.file) for clip in prompts]
        self.prompt_vectors = [np.stack([voice.embed(wave) for wave in waves]) for voice in self.voices]

    def __call__(self, clip: Clip) -> Verdict:
        wave = self.read(self.folder / clip.file)
        sound = report.measure(wave)
        words = self.recogniser(clip.language)
        heard = words.transcribe(wave) if sound.duration_s > 0.1 else ""
        said = words.compare(clip.text, heard)
        own: dict[str, float] = {}
        others: dict[str, float] = {}
        best: dict[str, bool] = {}
        if clip.voice in self.prompt_names:
            index = self.prompt_names.index(clip.voice)
            for judge, prompts in zip(self.voices, self.prompt_vectors, strict=True):
                cosine = prompts @ judge.embed(wave)
                own[judge.name] = float(cosine[index])
                others[judge.name] = float(np.delete(cosine, index).mean()) if len(cosine) > 1 else 0.0
                best[judge.name] = bool(cosine.argmax() == index and cosine[index] > 0)
        return Verdict(
            file=clip.file,
            text=clip.text,
            voice=clip.voice,
            heard=heard,
            word_errors=said.errors,
            words=said.words,
            mos=self.naturalness.score(wave) if sound.duration_s > 0.1 else 1.0,
            cosine_own=own,
            cosine_others=others,
            recognised=best,
            synthesis_s=clip.synthesis_s,
            cut_off=any("was cut off" in warning for warning in clip.warnings),
            repairs=sum("is spoken again" in warning for warning in clip.warnings),
            sound=sound,
            case=clip.case,
            longest_skip=said.longest_skip,
            longest_addition=said.longest_addition,
        )

    def recogniser(self, language: str):
        if language not in self.words:
            self.words[language] = self.judges.Words(self.folder_of_judges, language, threads=1)
        return self.words[language]


# ---------------------------------------------------------------------------------------------------- workers

_work: Callable[[Any], Any] | None = None  # of a worker process


def _start_worker(kind: Callable[[argparse.Namespace], Callable[[Any], Any]], options: argparse.Namespace) -> None:
    global _work
    torch.set_num_threads(1)
    _work = kind(options)


def _run_in_worker(item: Any) -> Any:
    assert _work is not None
    return _work(item)


def spread(
    kind: Callable[[argparse.Namespace], Callable[[Item], Result]],
    options: argparse.Namespace,
    items: Iterable[Item],
) -> Iterator[Result]:
    """Apply a worker to all items, in order, with ``options.workers`` processes of one thread each."""
    if options.workers <= 1:
        yield from map(kind(options), items)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers, _start_worker, (kind, options)) as pool:
        yield from pool.imap(_run_in_worker, items)


# -------------------------------------------------------------------------------------------------------- main


def synthesise(options: argparse.Namespace) -> list[Clip]:
    clips = []
    planned = TRIALS[options.what](options)
    for clip in spread(Speaker, options, planned):
        clips.append(clip)
        print(f"[{len(clips)}/{len(planned)}] {clip.synthesis_s:.1f} s  {clip.voice}: {clip.text}", flush=True)
    write_clips(options.out, clips)
    return clips


def judge(options: argparse.Namespace, clips: list[Clip]) -> list[Verdict]:
    verdicts = []
    for verdict in spread(Jury, options, clips):
        verdicts.append(verdict)
        if verdict.word_errors:
            print(f"[{len(verdicts)}/{len(clips)}] {verdict.text!r} heard as {verdict.heard!r}", flush=True)
    return verdicts


def sampling_option(text: str) -> tuple[str, float]:
    """A field of ``SamplingParams`` and its value."""
    name, _, value = text.partition("=")
    kinds = {field.name: type(field.default) for field in fields(SamplingParams)}
    if kinds.get(name) not in (int, float):
        raise argparse.ArgumentTypeError(f"no number of the sampling is called {name!r}")
    return name, kinds[name](value)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=TRIALS, default="words", help="what is compared")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="of the sentences")
    parser.add_argument("--sentences", type=int, default=40, help="how many of the sentences")
    parser.add_argument("--voices", type=int, default=8, help="how many of the prompts")
    parser.add_argument("--cross", action="store_true", help="every sentence in every voice")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder of the results")
    parser.add_argument("--audio", type=Path, help="judge the recordings in this folder, synthesise nothing")
    parser.add_argument("--model-dir", type=Path, default=Path("checkpoints"))
    parser.add_argument("--config", type=Path, default=None, help="config.yaml; default: that of --model-dir")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-repair", dest="repair", action="store_false", help="keep the first attempt at everything")
    parser.add_argument(
        "--sampling", nargs="+", type=sampling_option, default=[], metavar="NAME=NUMBER", help="other than the model's"
    )
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--sentences-file", type=Path, default=None, help="default: those of the language")
    parser.add_argument("--styles", type=Path, default=None, help="recordings of the eight manners, for transfer")
    parser.add_argument("--prompts", type=Path, default=HERE / "prompts", help="folder with clips.json")
    parser.add_argument("--judges", type=Path, default=None, help="folder with weights of the judges")
    return parser.parse_args()


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    clips = read_clips(options.audio) if options.audio else synthesise(options)
    if not clips:
        raise SystemExit("nothing to judge")
    verdicts = judge(options, clips)
    summary = report.summarise(verdicts)
    rows = [asdict(verdict) for verdict in verdicts]
    text = json.dumps({"summary": summary, "clips": rows}, indent=1, ensure_ascii=False)
    (options.out / "report.json").write_text(text + "\n", encoding="utf-8")
    found = FINDINGS.get(options.what)
    table = "\n".join([f"# {options.what}", "", *found(verdicts), "", ""]) if found else ""
    table += report.markdown(summary, verdicts)
    (options.out / "report.md").write_text(table, encoding="utf-8")
    worst = options.out / "worst"
    shutil.rmtree(worst, ignore_errors=True)
    worst.mkdir()
    for rank, verdict in enumerate(report.worst(verdicts, WORST), start=1):
        shutil.copy((options.audio or options.out) / verdict.file, worst / f"{rank}_{Path(verdict.file).name}")
    print(table)


if __name__ == "__main__":
    main()
