# syntax=docker/dockerfile:1
#   docker build -t indextts2 --target cpu .         the page on the CPU
#   docker build -t indextts2:cuda --target cuda .   the page on an NVIDIA GPU, in half precision inside DeepSpeed
#   docker run --rm -p 7860:7860 -v "$PWD/checkpoints:/models:ro" indextts2
#   docker run --rm --gpus all -p 7860:7860 -v "$PWD/checkpoints:/models:ro" indextts2:cuda
#   docker run --rm -v "$PWD:/work" -w /work indextts2 indextts synth --text "Hello." -o hello.wav
# The official model files belong into the volume /models; while it holds none, the bundled voice speaks.

FROM ghcr.io/astral-sh/uv:0.13.9 AS uv

FROM python:3.12-slim-bookworm AS environment
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT=/opt/venv UV_PYTHON_DOWNLOADS=never
WORKDIR /app
# The dependencies first: they are gigabytes, and change less often than the code.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --no-dev --no-install-project
COPY . .
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --no-dev

FROM python:3.12-slim-bookworm AS base
RUN useradd --create-home --uid 1000 indextts && mkdir /models && chown indextts /models
COPY --from=environment /opt/venv /opt/venv
COPY --from=environment /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 GRADIO_ANALYTICS_ENABLED=False
WORKDIR /app
VOLUME /models
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/', timeout=4)"]

FROM base AS cuda
# DeepSpeed and Triton compile at run time. The versions are those of the pinned base image's distribution.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
CMD ["python", "/app/webui.py", "--model-dir", "/models", "--host", "0.0.0.0", "--fp16", "--deepspeed"]

FROM base AS cpu
USER 1000
CMD ["python", "/app/webui.py", "--model-dir", "/models", "--host", "0.0.0.0"]
