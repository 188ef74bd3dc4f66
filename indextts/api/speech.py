"""``POST /v1/audio/speech``: what clients may ask for, and how it is spoken while they listen."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, create_model

from indextts.api.errors import ApiError
from indextts.api.formats import MEDIA_TYPES, STREAM_ENCODERS, encode
from indextts.api.limits import client_of
from indextts.api.settings import ApiSettings
from indextts.config import SamplingParams
from indextts.emotion import check_emo_vec, normalize_emo_vec
from indextts.errors import AudioError, EmotionError
from indextts.service import Finished, Service
from indextts.types import (
    DURATION_FACTORS,
    MAX_DURATION_S,
    MAX_INTERVAL_SILENCE_MS,
    AudioChunk,
    ChunkSchedule,
    FromAudio,
    FromText,
    FromVector,
    FromVoice,
    Progress,
    ProgressCallback,
    StopCallback,
    SynthesisRequest,
    SynthesisResult,
    VoicePrompt,
)
from indextts.types import Emotion as SpokenEmotion
from indextts.voices import MAX_RECORDING_S, VoiceLibrary, checked_recording

MODEL_ID = "indextts2"
INLINE_NAME = "of the request"
MAX_WARNINGS = 20
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


class InlineVoice(BaseModel):
    """A voice that is in no library: its recording comes with the request."""

    model_config = STRICT

    recording: str = Field(
        description=f"A WAV, FLAC, OGG or MP3 file in base64, at most {MAX_RECORDING_S:.0f} s long."
    )

    def prompt(self) -> VoicePrompt:
        """The recording, checked. Raises ``AudioError``."""
        try:
            data = base64.b64decode(self.recording, validate=True)
        except ValueError as error:
            raise AudioError(f"the recording of the request is not in base64: {error}") from error
        checked_recording(data, INLINE_NAME)
        return VoicePrompt(data, INLINE_NAME)


Voice = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[InlineVoice, Tag("<recording>")],
    Discriminator(lambda value: "<recording>" if isinstance(value, (dict, InlineVoice)) else "<name>"),
]


def prompt_of(voice: str | InlineVoice, library: VoiceLibrary) -> VoicePrompt:
    """The recording of a voice of the library, or of the request. Raises ``VoiceNotFound`` or ``AudioError``."""
    return voice.prompt() if isinstance(voice, InlineVoice) else library.get(voice).prompt()


class Emotion(BaseModel):
    """The emotion to speak in: exactly one of ``voice``, ``vector`` and ``text``."""

    model_config = STRICT

    voice: Voice | None = Field(None, description="A voice whose recording has the emotion, as ``voice`` of speech.")
    vector: list[float] | None = Field(
        None,
        min_length=8,
        max_length=8,
        description="Happy, angry, sad, afraid, disgusted, melancholic, surprised, calm; each from 0 to 1. "
        "They are damped and capped as on the page.",
    )
    raw: bool = Field(False, description="Take the vector as it is, its values adding up to at most 0.8.")
    text: str | None = Field(None, description="Description of the emotion; empty: the text to speak.")
    weight: float = Field(1.0, ge=0, le=1, description="How much of it.")
    random: bool = Field(False, description="Draw from many recorded examples of the emotions of vector or text.")

    def resolve(self, library: VoiceLibrary) -> SpokenEmotion:
        """What the engine is told. Raises ``EmotionError`` or ``VoiceNotFound``."""
        given = [name for name in ("voice", "vector", "text") if getattr(self, name) is not None]
        if len(given) != 1:
            raise EmotionError(f"an emotion is exactly one of voice, vector and text, not {given or 'none of them'}")
        if self.voice is not None:
            return FromAudio(prompt_of(self.voice, library), self.weight)
        if self.text is not None:
            return FromText(self.text.strip() or None, self.weight, self.random)
        values = self.vector or []
        if not all(0 <= value <= 1 for value in values):
            raise EmotionError(f"every emotion value must be from 0 to 1: {values}")
        if self.raw:
            return FromVector(check_emo_vec(values), self.weight, self.random)
        return FromVector(normalize_emo_vec(values), self.weight, self.random)


class SpeechRequest(BaseModel):
    """OpenAI's parameters, and below them ours."""

    model_config = STRICT

    model: str = Field(description=f"Always {MODEL_ID!r}.")
    input: str = Field(description="The text to speak.")
    voice: Voice = Field(description="Name of a voice of the library, see /v1/audio/voices, or a recording.")
    response_format: str = Field("mp3", description=f"One of {', '.join(MEDIA_TYPES)}.")
    speed: float = Field(1.0, description="From 0.5 to 2, another way to say duration_factor: 2 is twice as fast.")
    stream_format: str = Field("audio", description="Only audio.")

    stream: bool = Field(False, description="Send sound as soon as there is some; of pcm and wav only.")
    chunks: bool = Field(
        True,
        description="With stream: the sound of a segment begins while the rest is still being made; else, or where a "
        "duration is wanted, when it is finished.",
    )
    emotion: Emotion | None = Field(None, description="As in the recording of the voice, if not given.")
    duration_factor: float = Field(
        1.0, ge=DURATION_FACTORS[0], le=DURATION_FACTORS[1], description="Times as long as the model would take."
    )
    duration_s: float | None = Field(
        None, gt=0, le=MAX_DURATION_S, description="How long all of it shall last, silences included; or else a factor."
    )
    repair: bool = Field(
        True,
        description="Speak a segment again, with the next seed and at most twice, if it repeats, skips, stalls or has "
        "no end. In chunks only before its first sound.",
    )
    seed: int | None = Field(None, ge=0, lt=2**63, description="The same seed and settings give the same speech.")
    sampling: Sampling | None = None
    max_text_tokens_per_segment: int = Field(120, ge=2, le=600, description="Longest stretch spoken in one go.")
    interval_silence_ms: int = Field(
        200, ge=0, le=MAX_INTERVAL_SILENCE_MS, description="Silence between two such stretches."
    )
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
        slowest, fastest = DURATION_FACTORS  # the one is 1 over the other
        if not slowest <= self.speed <= fastest:
            message = f"speed {self.speed:g} is not supported, only {slowest:g} to {fastest:g}"
            raise ApiError(400, "unsupported_value", message, "speed")
        if self.speed != 1.0 and self.duration_factor != 1.0:
            message = f"give speed or duration_factor, not both: {self.speed:g} is a factor of {1 / self.speed:g}"
            raise ApiError(400, "invalid_value", message, "speed")
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
        request = SynthesisRequest(
            text=self.input,
            voice=prompt_of(self.voice, library),
            emotion=FromVoice() if self.emotion is None else self.emotion.resolve(library),
            sampling=sampling,
            max_text_tokens_per_segment=self.max_text_tokens_per_segment,
            quick_streaming_tokens=self.quick_streaming_tokens,
            interval_silence_ms=self.interval_silence_ms,
            repair=self.repair,
            duration_factor=self.duration_factor / self.speed,
            duration_s=self.duration_s,
            seed=self.seed,
        )
        return request.in_chunks(ChunkSchedule()) if self.stream and self.chunks else request


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
            return Response(data, media_type=media_type, headers=told(result))
        first = await anext(results)  # what goes wrong before there is any sound is answered as an error
        return StreamingResponse(encoded(first, results, body.response_format), media_type=media_type)

    return routes


def told(result: SynthesisResult) -> dict[str, str]:
    """What a header can tell of a result. There may be a warning for each of many segments, and headers are short."""
    read, means = result.read_emotion, result.duration_by
    return {
        "X-Seed": str(result.seed),
        "X-Segments": str(result.segments),
        "X-Synthesis-Seconds": f"{result.timings.total_s:.3f}",
        "X-Warnings": json.dumps(result.warnings[:MAX_WARNINGS]),
        **({} if means is None else {"X-Duration-By": means}),
        **({} if read is None else {"X-Read-Emotion": json.dumps(dataclasses.asdict(read))}),
    }


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
