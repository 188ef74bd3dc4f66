"""Who speaks for a command: the service of this process, or a running server."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import urlsplit

from indextts.cli.flags import API_KEY_VARIABLE, engine_config, given_engine_flags
from indextts.cli.speech import Speech
from indextts.client import Client
from indextts.config import EngineConfig
from indextts.service import Service, ServiceConfig
from indextts.types import AudioChunk, ChunkSchedule, Progress, SynthesisResult

logger = logging.getLogger(__name__)


class Speaker(Protocol):
    """Says what it is told, to several threads at once if it was opened for them. Raises ``IndexTTSError``."""

    def synthesize(self, speech: Speech) -> SynthesisResult: ...

    def stream(self, speech: Speech) -> Iterator[AudioChunk]: ...


class LocalSpeaker:
    """Speaks with the model of this process."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def synthesize(self, speech: Speech) -> SynthesisResult:
        return self.service.synthesize(speech.request(self.service.facts.sampling_defaults), on_progress=log_progress)

    def stream(self, speech: Speech) -> Iterator[AudioChunk]:
        request = speech.request(self.service.facts.sampling_defaults)
        if speech.chunks:
            request = request.in_chunks(ChunkSchedule())
        return self.service.stream(request, on_progress=log_progress)


class RemoteSpeaker:
    """Lets a server speak, which has its own model and its own voices."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def synthesize(self, speech: Speech) -> SynthesisResult:
        return self.client.synthesize(speech.body())

    def stream(self, speech: Speech) -> Iterator[AudioChunk]:
        return self.client.stream(speech.body() | {"chunks": speech.chunks})


def add_server_flag(parser: argparse.ArgumentParser) -> None:
    """The choice between the two."""
    parser.add_argument(
        "--server", type=server_address, metavar="URL",
        help="let a running `indextts serve` speak, as in http://127.0.0.1:8000: no model is loaded here; the "
        f"environment variable {API_KEY_VARIABLE} has the key if it wants one",
    )  # fmt: skip


def where_to_speak(args: argparse.Namespace) -> EngineConfig | str:
    """The model to load, or the address of the server. Ends the program if the flags contradict each other."""
    if args.server is None:
        return engine_config(args, args.parser)
    if flags := given_engine_flags(args):
        args.parser.error(f"{', '.join(flags)}: for a model that is loaded here, not with --server")
    return args.server


@contextmanager
def open_speaker(where: EngineConfig | str, parallel: int = 1) -> Iterator[Speaker]:
    """Load the model, or make sure that the server is there. Raises ``IndexTTSError``.

    Args:
        parallel: How many threads will ask at once. A server decides by itself how many it serves side by side.
    """
    if isinstance(where, str):
        with Client(where, os.environ.get(API_KEY_VARIABLE) or None) as client:
            client.check()
            yield RemoteSpeaker(client)
    else:
        from indextts.engine import Engine

        places = ServiceConfig(simultaneous=parallel + 1, max_queue=1)  # one client gets all of them but one
        service = Service(lambda: Engine.load(where), places)
        try:
            yield LocalSpeaker(service)
        finally:
            service.close(grace_s=0.0)  # what is unfinished now has lost its reader


def server_address(text: str) -> str:
    """The URL of a server."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:  # a port or an address that is none
        valid = False
    if not valid or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(f"must be a URL as in http://127.0.0.1:8000, not {text!r}")
    return text


def log_progress(step: Progress) -> None:
    logger.debug("%3.0f %% %s", 100 * step.fraction, step.message)
