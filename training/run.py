"""The whole recipe in one go: generate speech, then train every network as soon as what it needs is there.

    python -m training.run --data DATA --runs RUNS --gpus 0,1 --minutes 25 --pack PACK

Several steps run at a time. A step whose result exists is skipped and a trainer that was cut off resumes, so the same
command can be given again. ``RUNS/run.log`` tells what happens, with the last words of every step, twice a minute and
where it fails; every step writes ``RUNS/<step>.out``. The minutes of the single trainings are shares of ``--minutes``,
and none goes on for much longer than that.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ATTEMPTS = 3
REPORT_EVERY_S = 30
MIN_MINUTES = 0.5  # of a training that starts when the time is all but over


@dataclass(frozen=True)
class Step:
    """One module.

    Attributes:
        result: The file whose existence says that the step is done.
        gpu: Index into the list of devices.
        share: Part of the total minutes.
        retry: Options to add when a failed step is tried once more.
    """

    name: str
    command: tuple[str, ...]
    result: str
    needs: tuple[str, ...] = ()
    gpu: int = 0
    share: float | None = None
    retry: tuple[str, ...] = ()


def train(network: str, *options: str) -> tuple[str, ...]:
    """The command of a trainer."""
    return (f"training.train_{network}", "--resume", *options)


# "speech" stands for enough speech to start on, "speech_complete" for all of it.
STEPS = (
    Step("semantic_encoder", train("semantic_encoder"), "semantic_encoder.safetensors", ("speech",), 0, 0.18),
    Step("semantic_codec", train("semantic_codec"), "semantic_codec.safetensors", ("semantic_encoder",), 0, 0.045),
    Step("style_encoder", train("style_encoder"), "campplus.safetensors", ("speech_complete",), 1, 0.12),
    Step(
        "vocoder",
        train("vocoder"),
        "vocoder.safetensors",
        ("speech_complete",),  # beside the generation there is not always memory for it
        1,
        0.90,
        retry=("--compile", "0", "--graph", "0"),
    ),
    Step(
        "semantics", ("training.extract_semantics",), "semantics/train/index.npz", ("semantic_codec", "speech_complete")
    ),
    Step("styles", ("training.extract_styles",), "style.npy", ("style_encoder", "speech_complete"), 1),
    Step("gpt", train("gpt"), "gpt.safetensors", ("semantics",), 0, 0.43),
    Step(
        "s2mel_codes",
        train("s2mel", "--stage", "codes"),
        "s2mel_codes.safetensors",
        ("semantics", "styles"),
        0,
        0.43,
    ),
    Step(
        "s2mel_latents",
        train("s2mel", "--stage", "latents"),
        "s2mel_latents.safetensors",
        ("s2mel_codes", "gpt", "semantics", "styles"),
        0,
        0.17,
    ),
    Step("s2mel", ("training.distil_s2mel", "--resume"), "s2mel.safetensors", ("s2mel_latents",), 0, 0.06),
    Step("emotion_matrix", ("training.make_emotion_matrix",), "feat2.safetensors", ("gpt", "semantics", "styles"), 1),
)


def settings(values: list[str]) -> dict[str, str]:
    """``["step=value", ...]`` by step; a step that does not exist ends the program."""
    given = dict(value.split("=", 1) for value in values)
    known(list(given))
    return given


def known(names: list[str]) -> list[str]:
    """The names of steps; one that does not exist ends the program."""
    if unknown := sorted(set(names) - {step.name for step in STEPS}):
        sys.exit(f"no such step: {', '.join(unknown)}; there are {', '.join(step.name for step in STEPS)}")
    return names


class Run:
    """What is finished, what is running, and the clock."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.data, self.runs = Path(arguments.data), Path(arguments.runs)
        self.gpus = arguments.gpus.split(",")
        self.shares, self.place, self.init = map(settings, (arguments.shares, arguments.place, arguments.init))
        self.runs.mkdir(parents=True, exist_ok=True)
        self.log_file = (self.runs / "run.log").open("a", buffering=1)
        self.begin = self.last_report = time.time()
        self.running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        self.wanted = known(arguments.only) or [step.name for step in STEPS]
        self.finished = {step.name for step in STEPS if (self.runs / step.result).exists()}
        self.failures: dict[str, int] = {}

    def log(self, text: str) -> None:
        line = f"[{time.time() - self.begin:6.0f} s] {text}"
        self.log_file.write(line + "\n")
        print(line, flush=True)

    def start(self, name: str, command: tuple[str, ...], gpus: str) -> None:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpus, "PYTHONUNBUFFERED": "1"}
        with (self.runs / f"{name}.out").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], stdout=out, stderr=subprocess.STDOUT, env=environment
            )
        self.running[name] = (process, time.time())
        self.log(f"start {name} on GPU {gpus}: {' '.join(command)}")

    def start_generation(self) -> None:
        a = self.arguments
        command = ("training.generate", "--out", str(self.data), "--pack", a.pack, "--hours", str(a.hours))
        command += ("--minutes", str(a.generation_minutes), "--processes", str(a.processes), "--gpus", a.gpus)
        command += ("--batch-symbols", str(a.batch_symbols))
        self.start("generate", command, a.gpus)

    def start_step(self, step: Step) -> None:
        command = (*step.command, "--data", str(self.data), "--out", str(self.runs), "--config", self.arguments.config)
        if step.name in self.init:
            command += ("--init", self.init[step.name])
        if step.name in self.failures:
            command += step.retry
        if step.share is not None:
            share = float(self.shares.get(step.name, step.share))
            left = self.arguments.minutes - (time.time() - self.begin) / 60
            minutes = max(MIN_MINUTES, min(share * self.arguments.minutes, left))
            command += ("--minutes", f"{minutes:.2f}")
        self.start(step.name, command, self.gpus[int(self.place.get(step.name, step.gpu)) % len(self.gpus)])

    def collect(self) -> None:
        """Note which processes have ended, and how."""
        for name, (process, started) in list(self.running.items()):
            code = process.poll()
            if code is not None:
                del self.running[name]
                if code == 0:
                    self.finished.add(name)
                else:
                    self.failures[name] = self.failures.get(name, 0) + 1
                self.log(f"{'end' if code == 0 else f'FAILED ({code})'} {name} after {time.time() - started:.0f} s")
                if code:
                    self.log("\n".join(self.last_lines(name, 8)))

    def last_lines(self, name: str, count: int) -> list[str]:
        """What a step wrote last."""
        lines = (self.runs / f"{name}.out").read_text(encoding="utf-8", errors="replace").splitlines()
        return [f"    {name}: {line[:300]}" for line in lines if line.strip()][-count:]

    def report(self) -> None:
        """Log how far the running steps are, so that a slow one shows."""
        if self.running and time.time() - self.last_report > REPORT_EVERY_S:
            self.last_report = time.time()
            self.log("\n".join(["running:", *(line for name in self.running for line in self.last_lines(name, 1))]))

    def available(self) -> set[str]:
        """Finished steps, and how far the speech is."""
        have = set(self.finished)
        if "generate" not in self.running:
            have |= {"speech", "speech_complete"}
        elif len(list(self.data.glob("shard_*.json"))) >= self.arguments.first_shards:
            have.add("speech")
        return have

    def loop(self) -> int:
        """Run everything to the end; the number of steps that failed or could not start."""
        if self.arguments.generation_minutes > 0:
            self.start_generation()
        while True:
            self.collect()
            self.report()
            have, busy = self.available(), set(self.running) | self.finished
            for step in STEPS:
                hopeless = self.failures.get(step.name, 0) >= ATTEMPTS
                if step.name not in self.wanted or step.name in busy or hopeless:
                    continue
                if have.issuperset(step.needs):
                    self.start_step(step)
            if not self.running:
                break
            time.sleep(1)
        rest = [name for name in self.wanted if name not in self.finished]
        self.log(f"not done: {', '.join(rest)}" if rest else "all steps done")
        return len(rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the generated speech")
    parser.add_argument("--runs", required=True, help="folder of checkpoints, logs and results")
    parser.add_argument("--pack", required=True, help="teacher, voices and sentences for training.generate")
    parser.add_argument("--gpus", default="0", help="devices, such as 0,1")
    parser.add_argument("--minutes", type=float, default=25, help="of the whole run")
    parser.add_argument("--shares", nargs="*", default=[], help="other parts of the minutes, such as gpt=0.6")
    parser.add_argument("--place", nargs="*", default=[], help="other places, such as s2mel_codes=1 for the second GPU")
    parser.add_argument("--init", nargs="*", default=[], help="weights to go on from, such as s2mel_codes=FILE")
    parser.add_argument("--only", nargs="*", default=[], help="steps to do, where the others are for another day")
    parser.add_argument("--config", default="checkpoints/nano/config.yaml", help="sizes of the networks")
    parser.add_argument("--hours", type=float, default=24, help="of speech at most")
    parser.add_argument("--generation-minutes", type=float, default=2.5, help="0: use the speech that is there")
    parser.add_argument("--first-shards", type=int, default=20, help="shards of speech to start training on")
    parser.add_argument("--processes", type=int, default=12, help="of the generation")
    parser.add_argument("--batch-symbols", type=int, default=2500, help="of the generation; sets its memory on the GPU")
    sys.exit(1 if Run(parser.parse_args()).loop() else 0)


if __name__ == "__main__":
    main()
