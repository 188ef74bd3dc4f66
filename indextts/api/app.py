"""The server's routes, put together."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from indextts import __version__
from indextts.api.errors import ApiError, add_handlers
from indextts.api.limits import BodyLimit, Gatekeeper
from indextts.api.metrics import registry_of
from indextts.api.settings import ApiSettings
from indextts.api.speech import MODEL_ID, speech_routes
from indextts.api.voices import voice_routes
from indextts.service import Service
from indextts.voices import VoiceLibrary


def create_app(service: Service, library: VoiceLibrary, settings: ApiSettings | None = None) -> FastAPI:
    """The HTTP interface around ``service`` and ``library``, not yet served. Whoever made the service closes it."""
    settings = settings or ApiSettings()
    app = FastAPI(title="IndexTTS2", version=__version__)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, max_upload_bytes=settings.max_upload_bytes)
    add_handlers(app)
    gatekeeper = Gatekeeper(settings)
    key, rate = Depends(gatekeeper.check_key), Depends(gatekeeper.check_rate)
    app.include_router(speech_routes(service, library, settings), prefix="/v1", dependencies=[key, rate])
    app.include_router(voice_routes(library), prefix="/v1", dependencies=[key, rate])
    app.include_router(model_routes(service), prefix="/v1", dependencies=[key])
    app.include_router(metrics_route(service), dependencies=[key])
    app.include_router(health_routes(service))
    return app


def model_routes(service: Service) -> APIRouter:
    """``/v1/models``: there is one."""
    routes = APIRouter(prefix="/models")
    model = {"id": MODEL_ID, "object": "model", "created": 0, "owned_by": service.facts.model_name}

    @routes.get("")
    def list_models() -> dict[str, object]:
        return {"object": "list", "data": [model]}

    @routes.get("/{model_id}")
    def get_model(model_id: str) -> dict[str, object]:
        if model_id != MODEL_ID:
            raise ApiError(404, "model_not_found", f"there is no model {model_id[:64]!r}: use {MODEL_ID!r}", "model")
        return model

    return routes


def metrics_route(service: Service) -> APIRouter:
    """``/metrics``."""
    routes, registry = APIRouter(), registry_of(service)

    @routes.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes


def health_routes(service: Service) -> APIRouter:
    """``/health``: the server lives. ``/ready``: it takes requests at this moment."""
    routes = APIRouter()

    @routes.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get("/ready")
    def ready() -> JSONResponse:
        stats = service.stats()
        state = "ready"
        if not service.accepting:
            state = "shutting down"
        elif stats.waiting >= service.config.max_queue:
            state = "the queue is full"
        content = {"status": state, "waiting": stats.waiting, "running": stats.running, "loaded": stats.loaded}
        return JSONResponse(content, 200 if state == "ready" else 503)

    return routes
