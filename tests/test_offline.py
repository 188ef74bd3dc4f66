"""Once the files are there, loading and speaking open no connection and look no name up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PROGRAM = """
import sys
from pathlib import Path

def refuse(event, args):  # cannot be removed again, hence a process of its own
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise SystemExit(f"the network is asked: {event} {args}")

sys.addaudithook(refuse)
if sys.argv[1] == "control":
    import urllib.request
    urllib.request.urlopen("http://127.0.0.1:9")

from indextts.config import EngineConfig
from indextts.engine import Engine
from indextts.types import FromText, SynthesisRequest, VoicePrompt

voice = VoicePrompt.from_path(Path("tests/golden/e2e_spk.wav"))
engine = Engine.load(EngineConfig(model_dir=Path(sys.argv[1]), device="cpu"))
for text in ("Hello, 12 dogs.", "你好，12只狗。"):
    result = engine.synthesize(SynthesisRequest(text, voice, seed=0, repair=False))
    assert len(result.samples) > 0
"""


def run(argument: str) -> subprocess.CompletedProcess[str]:
    """In an environment that does not tell libraries to stay offline."""
    environment = {key: value for key, value in os.environ.items() if "OFFLINE" not in key}
    command = [sys.executable, "-c", PROGRAM, argument]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_nothing_at_run_time(tiny_model_dir: Path) -> None:
    done = run(str(tiny_model_dir))
    assert done.returncode == 0, done.stderr


def test_a_connection_would_be_seen() -> None:
    done = run("control")
    assert done.returncode == 1 and "the network is asked: socket." in done.stderr
