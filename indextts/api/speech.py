"""``POST /v1/audio/speech``: what clients may ask for, and how it is spoken while they listen."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, create_model

from indextts.api.errors import ApiError
from indextts.api.limits import client_of
from indextts.api.settings import ApiSettings
from indextts.config import SamplingParams
from indextts.emotion import normalize_emo_vec
from indextts.encoding import MEDIA_TYPES, STREAM_ENCODERS, encode
from indextts.errors import EmotionError
from indextts.service import Finished, Service
from indextts.types import (
    AudioChunk,
    FromAudio,
    FromText,
    FromVector,
    FromVoice,
    Progress,
    ProgressCallback,
    StopCallback,
    SynthesisRequest,
    SynthesisResult,
)
from indextts.types import Emotion as SpokenEmotion
from indextts.voices import VoiceLibrary

MODEL_ID = "indextts2"
STRICT = ConfigDict(extra="forbid", strict=True)

if TYPE_CHECKING:
    Sampling = BaseModel
else:
    Sampling = create_model(
        "Sampling",
        __config__=STRICT,
        __doc__="How codes are drawn; what is not given is as the model's configuration says.",
        **{field.name: (type(field.default) | None, None) for field in dataclasses.fields(SamplingParams)},
    )


class Emotion(BaseModel):
    """The emotion to speak in: exactly one of ``voice``, ``vector`` and ``text``."""

    model_config = STRICT

    voice: str | None = Field(None, description="Name of a voice of the library whose recording has the emotion.")
    vector: list[float] | None = Field(
        None,
        min_length=8,
        max_length=8,
        description="Happy, angry, sad, afraid, disgusted, melancholic, surprised, calm; each from 0 to 1. "
        "They are damped and capped as on the page.",
    )
    text: str | None = Field(None, description="Description of the emotion. Needs the Qwen emotion model.")
    weight: float = Field(1.0, ge=0, le=1, description="How much of it.")
    random: bool = Field(False, description="Draw from many recorded examples of the emotions of vector or text.")

    def resolve(self, library: VoiceLibrary) -> SpokenEmotion:
        """What the engine is told. Raises ``EmotionError`` or ``VoiceNotFound``."""
        given = [name for name in ("voice", "vector", "text") if getattr(self, name) is not None]
        if len(given) != 1:
            raise EmotionError(f"an emotion is exactly one of voice, vector and text, not {given or 'none of them'}")
        if self.voice is not None:
            return FromAudio(library.get(self.voice).prompt(), self.weight)
        if self.text is not None:
            return FromText(self.text.strip() or None, self.weight, self.random)
        values = self.vector or []
        if not all(0 <= value <= 1 for value in values):
            raise EmotionError(f"every emotion value must be from 0 to 1: {values}")
        return FromVector(normalize_emo_vec(values), self.weight, self.random)


class SpeechRequest(BaseModel):
    """OpenAI's parameters, and below them ours."""

    model_config = STRICT

    model: str = Field(description=f"Always {MODEL_ID!r}.")
    input: str = Field(description="The text to speak.")
    voice: str = Field(description="Name of a voice of the library, see /v1/audio/voices.")
    response_format: str = Field("mp3", description=f"One of {', '.join(MEDIA_TYPES)}.")
    speed: float = Field(1.0, description="Only 1.0: the model speaks at the pace of the voice.")
    stream_format: str = Field("audio", description="Only audio.")

    stream: bool = Field(False, description="Send sound as soon as there is some; of pcm and wav only.")
    emotion: Emotion | None = Field(None, description="As in the recording of the voice, if not given.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="The same seed and settings give the same speech.")
    sampling: Sampling | None = None
    max_text_tokens_per_segment: int = Field(120, ge=2, le=600, description="Longest stretch spoken in one go.")
    quick_streaming_tokens: int = Field(
        0, ge=0, le=600, description="Within so many tokens from the start, segments are at most half as long."
    )

    def check(self, settings: ApiSettings) -> None:
        """Refuse by name what cannot be honoured. Raises ``ApiError``."""
        if self.model != MODEL_ID:
            raise ApiError(404, "model_not_found", f"there is no model {self.model[:64]!r}: use {MODEL_ID!r}", "model")
        formats = STREAM_ENCODERS if self.stream else MEDIA_TYPES
        if self.response_format not in formats:
            what = "a streamed response_format" if self.stream else "response_format"
            message = f"{what} must be one of {', '.join(formats)}, not {self.response_format[:64]!r}"
            raise ApiError(400, "unsupported_value", message, "response_format")
        if self.speed != 1.0:
            message = f"speed {self.speed:g} is not supported, only 1: the model speaks at the pace of the voice"
            raise ApiError(400, "unsupported_value", message, "speed")
        if self.stream_format != "audio":
            message = f"stream_format {self.stream_format[:64]!r} is not supported, only 'audio'"
            raise ApiError(400, "unsupported_value", message, "stream_format")
        if len(self.input) > settings.max_text_characters:
            message = f"the text has {len(self.input)} characters; at most {settings.max_text_characters} are taken"
            raise ApiError(400, "text_too_long", message, "input")

    def resolve(self, library: VoiceLibrary, defaults: SamplingParams) -> SynthesisRequest:
        """What the engine is told. Reads the recordings. Raises ``IndexTTSError``."""
        sampling = None
        if self.sampling is not None:
            sampling = dataclasses.replace(defaults, **self.sampling.model_dump(exclude_none=True))
        return SynthesisRequest(
            text=self.input,
            voice=library.get(self.voice).prompt(),
            emotion=FromVoice() if self.emotion is None else self.emotion.resolve(library),
            sampling=sampling,
            max_text_tokens_per_segment=self.max_text_tokens_per_segment,
            quick_streaming_tokens=self.quick_streaming_tokens,
            seed=self.seed,
        )


def speech_routes(service: Service, library: VoiceLibrary, settings: ApiSettings) -> APIRouter:
    """The route of speech."""
    routes = APIRouter()

    @routes.post("/audio/speech", response_class=Response, responses={200: {"content": {"audio/*": {}}}})
    async def speech(body: SpeechRequest, http: Request) -> Response:
        """Speak a text with a voice of the library."""
        body.check(settings)
        request = await run_in_threadpool(body.resolve, library, service.facts.sampling_defaults)
        media_type = MEDIA_TYPES[body.response_format]
        results = listen(service, request, http, body.stream)
        if not body.stream:
            async with aclosing(results):
                result = await anext(results)
            data = await run_in_threadpool(encode, result.samples, result.sample_rate_hz, body.response_format)
            return Response(data, media_type=media_type, headers={"X-Seed": str(result.seed)})
        first = await anext(results)  # what goes wrong before there is any sound is answered as an error
        return StreamingResponse(encoded(first, results, body.response_format), media_type=media_type)

    return routes


async def listen(service: Service, request: SynthesisRequest, http: Request, stream: bool) -> AsyncGenerator[Any, None]:
    """Speak ``request``: yields its chunks, or its one result. The work is cancelled when the client goes away.

    Raises:
        IndexTTSError: as ``Service.stream``.
    """

    def work(engine: Any, tell: ProgressCallback, stop: StopCallback) -> Iterator[AudioChunk | SynthesisResult]:
        if stream:
            yield from engine.stream(request, tell, stop)
        else:
            yield engine.synthesize(request, tell, stop)

    loop, items = asyncio.get_running_loop(), asyncio.Queue[object]()

    def deliver(item: object) -> None:
        loop.call_soon_threadsafe(items.put_nowait, item)

    job = service.submit(work, client_of(http), deliver)
    watcher = asyncio.create_task(cancel_when_gone(http, job.cancel))
    try:
        while True:
            item = await items.get()
            if isinstance(item, Finished):
                if item.error is not None:
                    raise item.error
                return
            if not isinstance(item, Progress):
                yield item
    finally:
        watcher.cancel()
        job.cancel()


async def cancel_when_gone(http: Request, cancel: Callable[[], None]) -> None:
    """Wait until the client has closed its connection, then ``cancel``."""
    while (await http.receive())["type"] != "http.disconnect":
        pass
    cancel()


async def encoded(
    first: AudioChunk, rest: AsyncGenerator[AudioChunk, None], audio_format: str
) -> AsyncGenerator[bytes, None]:
    """The bytes of a stream of sound."""
    encoder = STREAM_ENCODERS[audio_format](first.sample_rate_hz)
    async with aclosing(rest):
        yield encoder.add(first.samples)
        async for chunk in rest:
            if data := encoder.add(chunk.samples):
                yield data
        if data := encoder.end():
            yield data
