"""``/v1/audio/voices``: the voice library."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Response, UploadFile
from fastapi.concurrency import run_in_threadpool

from indextts.voices import LibraryVoice, VoiceLibrary


def voice_routes(library: VoiceLibrary) -> APIRouter:
    """The routes of voices."""
    routes = APIRouter(prefix="/audio/voices")

    @routes.get("")
    def list_voices(search: str = "") -> dict[str, object]:
        """All voices whose name holds ``search``."""
        return {"object": "list", "data": [described(voice) for voice in library.voices(search)]}

    @routes.get("/{name}")
    def get_voice(name: str) -> dict[str, object]:
        """One voice."""
        return described(library.get(name))

    @routes.post("", status_code=201)
    async def save_voice(name: Annotated[str, Form()], file: UploadFile) -> dict[str, object]:
        """Store a recording (WAV, FLAC, OGG or MP3) under a new name."""
        data = await file.read()
        return described(await run_in_threadpool(library.save, name, data))

    @routes.delete("/{name}", status_code=204, response_class=Response)
    def delete_voice(name: str) -> None:
        """Remove a voice and its recording for good."""
        library.delete(name)

    return routes


def described(voice: LibraryVoice) -> dict[str, object]:
    """A voice as plain data."""
    return {"id": voice.name, "object": "voice", "name": voice.name, "read_only": voice.read_only}
