"""Many clients at once against a server with the bundled voice, for as long as you like.

    uv run --group judges python -m tests.load.soak --minutes 30 --clients 16 --json soak.json

Each client is an address of its own, asks for short and longer texts in different voices and emotions, as files and as
streams, and now and then changes its mind and closes the connection. A request is lost if it ends in anything but a
whole recording or a refusal that says when to come again. A recording is mixed up if the same request, made again
afterwards with nobody else there, gives another one; this is asked of those that sound like another voice and of
some others (see mixups.py). Ends with 1 if anything was lost or mixed up, or memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from indextts.resources import EVAL_SENTENCES
from tests.load.mixups import Judge, Recording, mixed_up, recording_of, repeat_alone, suspicious

SENTENCES = EVAL_SENTENCES.read_text(encoding="utf-8").splitlines()
START_S = 180.0
LONGEST_REQUEST_S = 900.0
CHANGES_ITS_MIND = 0.15  # how often a client closes the connection
STREAMS = 0.25
EMOTIONAL = 0.3
REPEATED = 30  # requests that are made again, besides those that sound like another voice
MEMORY_GROWTH = 0.05
REFERENCES = 3  # recordings of each voice before the load
MEMORY_EVERY_S = 10.0
WARM_UP = 0.2  # share of the time after which memory should no longer grow


@dataclass
class Outcome:
    """What became of the requests so far."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    references: dict[str, list[Recording]] = field(default_factory=dict)
    recordings: list[Recording] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)


class Server:
    """``indextts serve`` in a process of its own."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self.log = folder / "server.log"
        command = [sys.executable, "-c", "import sys; from indextts.cli import main; sys.exit(main())", "serve"]
        command += ["--port", "0", "--voices", str(folder / "voices"), *arguments]
        with self.log.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        self.address = self._address()

    def _address(self) -> str:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(r"http://[\d.]+:\d+", self.log.read_text()):
                return found[0]
            time.sleep(0.5)
        raise SystemExit(f"the server did not start:\n{self.log.read_text()}")

    @property
    def memory_mb(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        self.process.terminate()
        return self.process.wait(120)


def some_request(dice: random.Random, voices: list[str]) -> dict:
    """A request as somebody might send it."""
    count = 1 if dice.random() < 0.8 else dice.randint(2, 4)
    request: dict = {
        "model": "indextts2",
        "voice": dice.choice(voices),
        "input": " ".join(dice.sample(SENTENCES, count)),
        "response_format": dice.choice(("wav", "wav", "flac")),
        "seed": dice.randrange(10**6),
    }
    if dice.random() < STREAMS:
        request |= {"response_format": "wav", "stream": True, "max_text_tokens_per_segment": 40}
    if dice.random() < EMOTIONAL:
        vector = [0.0] * 8
        vector[dice.randrange(8)] = 0.6
        request["emotion"] = {"vector": vector, "weight": 0.65}
    return request


async def client(number: int, address: str, voices: list[str], end: float, outcome: Outcome) -> None:
    """One user: a request after the other until the time is up."""
    dice = random.Random(number)
    transport = httpx.AsyncHTTPTransport(local_address=f"127.0.1.{number + 1}")
    async with httpx.AsyncClient(base_url=address, transport=transport, timeout=LONGEST_REQUEST_S) as http:
        while time.monotonic() < end:
            request = some_request(dice, voices)
            patience_s = dice.uniform(0.5, 30.0) if dice.random() < CHANGES_ITS_MIND else None
            started = time.monotonic()
            try:
                response = await asyncio.wait_for(http.post("/v1/audio/speech", json=request), patience_s)
            except asyncio.TimeoutError:  # in Python 3.10 another class than the built-in one
                outcome.counts["closed by the client"] += 1
            except httpx.HTTPError as error:
                outcome.counts["lost"] += 1
                outcome.errors[repr(error)] += 1
            else:
                await judge(response, request, time.monotonic() - started, outcome)


async def judge(response: httpx.Response, request: dict, seconds: float, outcome: Outcome) -> None:
    """Count a response, and wait if it says so."""
    if response.status_code == 429 and "Retry-After" in response.headers:
        outcome.counts["refused with a time to come again"] += 1
        await asyncio.sleep(float(response.headers["Retry-After"]))
    elif response.status_code == 200:
        outcome.counts["served"] += 1
        outcome.seconds.append(seconds)
        outcome.recordings.append(recording_of(response, request))
    else:
        outcome.counts["lost"] += 1
        outcome.errors[f"{response.status_code} {response.text[:200]}"] += 1


async def watch(server: Server, end: float, outcome: Outcome) -> None:
    """Write down the server's memory."""
    begin = time.monotonic()
    while time.monotonic() < end:
        outcome.memory.append((time.monotonic() - begin, server.memory_mb))
        await asyncio.sleep(MEMORY_EVERY_S)


async def run(server: Server, clients: int, minutes: float) -> Outcome:
    """References first, then the load."""
    outcome = Outcome()
    async with httpx.AsyncClient(base_url=server.address, timeout=LONGEST_REQUEST_S) as http:
        voices = [voice["name"] for voice in (await http.get("/v1/audio/voices")).json()["data"]]
        for voice in voices:
            outcome.references[voice] = []
            for seed in range(REFERENCES):
                body = {"model": "indextts2", "voice": voice, "input": SENTENCES[seed], "response_format": "wav"}
                response = await http.post("/v1/audio/speech", json=body | {"seed": seed})
                outcome.references[voice].append(recording_of(response, body))
    end = time.monotonic() + 60 * minutes
    await asyncio.gather(
        watch(server, end, outcome), *(client(i, server.address, voices, end, outcome) for i in range(clients))
    )
    return outcome


def mixups(server: Server, outcome: Outcome, others: int) -> dict[str, int]:
    """The figures of who got whose recording. The server must be idle."""
    suspects, compared = suspicious(outcome.recordings, Judge(outcome.references))
    with httpx.Client(base_url=server.address, timeout=LONGEST_REQUEST_S) as http:
        repeated = repeat_alone(http, outcome.recordings, suspects, others)
    different = mixed_up(repeated)
    for recording in different:
        outcome.errors[f"mixed up: {recording.body}"] += 1
    return {
        "compared by voice": compared,
        "nearer to another voice": len(suspects),
        "made again alone": len(repeated),
        "equal to the last bit": len(repeated) - len(mixed_up(repeated, tolerance=0)),
        "mixed up": len(different),
    }


def by_minute(memory: list[tuple[float, float]]) -> list[int]:
    """The median of each minute."""
    minutes: dict[int, list[float]] = {}
    for at_s, megabytes in memory:
        minutes.setdefault(int(at_s // 60), []).append(megabytes)
    return [round(statistics.median(values)) for _, values in sorted(minutes.items())]


def report(outcome: Outcome, mixed: dict[str, int], minutes: float, clients: int, exit_code: int) -> dict:
    """All figures."""
    warm = [memory for at, memory in outcome.memory if at >= WARM_UP * 60 * minutes]
    third = max(1, len(warm) // 3)
    begin, finish = statistics.median(warm[:third]), statistics.median(warm[-third:])
    quantile = sorted(outcome.seconds)
    return {
        "minutes": minutes,
        "clients": clients,
        **{
            name: outcome.counts[name]
            for name in ("served", "refused with a time to come again", "closed by the client")
        },
        "lost": outcome.counts["lost"],
        "errors": dict(outcome.errors),
        **mixed,
        "audio_s": round(sum(recording.duration_s for recording in outcome.recordings), 1),
        "p50_s": round(quantile[len(quantile) // 2], 1),
        "p95_s": round(quantile[int(len(quantile) * 0.95)], 1),
        "memory_at_start_mb": round(outcome.memory[0][1]),
        "memory_after_warm_up_mb": round(begin),
        "memory_at_end_mb": round(finish),
        "memory_growth": round(finish / begin - 1, 4),
        "memory_by_minute_mb": by_minute(outcome.memory),
        "exit_code_of_the_server": exit_code,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=REPEATED, metavar="N", help="requests made again alone (30)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("server", nargs="*", help="flags for the server, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), options.server)
        try:
            outcome = asyncio.run(run(server, options.clients, options.minutes))
            mixed = mixups(server, outcome, options.repeat)
        finally:
            exit_code = server.stop()
        figures = report(outcome, mixed, options.minutes, options.clients, exit_code)
    text = json.dumps(figures, indent=1)
    sys.stdout.write(text + "\n")
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    failed = figures["lost"] or figures["mixed up"] or figures["memory_growth"] > MEMORY_GROWTH or exit_code
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
