# syntax=docker/dockerfile:1.17
# Every command of streamer as an image.
#
#   docker build --target cpu  --tag streamer:0.1.0-cpu .
#   docker build --target cuda --tag streamer:0.1.0-cuda .     runs with the NVIDIA container runtime
#   docker build --target sbom --output dist .                 dist/sbom.cdx.json: what is in the cpu image
#
# It needs no root and writes nowhere but to /var/cache/streamer (hub models) and /tmp: run it with a read-only root.
# A model of yours is mounted, or baked in by a Dockerfile of three lines:
#
#   FROM streamer:0.1.0-cpu
#   COPY my-model /models/my-model
#   ENV STREAMER__MODEL__NAME=/models/my-model

ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm
ARG UV_IMAGE=ghcr.io/astral-sh/uv:0.13.8

FROM ${UV_IMAGE} AS uv

# The dependencies, without the sources: this layer changes when constraints.txt does.
FROM ${PYTHON_IMAGE} AS build
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/streamer
WORKDIR /src
COPY pyproject.toml constraints.txt ./
RUN uv venv "$VIRTUAL_ENV"

# `--build-arg EXTRA=openvino` is for `model.runtime: openvino`.
FROM build AS build-cpu
ARG EXTRA=
RUN --mount=type=cache,target=/root/.cache/uv UV_TORCH_BACKEND=cpu \
    uv pip install --constraints constraints.txt --requirements pyproject.toml --extra torch --extra otel \
    ${EXTRA:+--extra "$EXTRA"}
COPY README.md LICENSE ./
COPY streamer streamer
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --build-constraints constraints.txt --no-deps .

# On Linux the package index's own torch is the CUDA build, with NVIDIA's libraries beside it as packages.
# fp8 is for `model.quantize: fp8`, and for CUDA alone.
FROM build AS build-cuda
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --constraints constraints.txt --requirements pyproject.toml --extra torch --extra otel --extra fp8
COPY README.md LICENSE ./
COPY streamer streamer
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --build-constraints constraints.txt --no-deps .

FROM build-cpu AS sbom-build
RUN --mount=type=cache,target=/root/.cache/uv \
    uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py environment \
    --pyproject pyproject.toml --output-reproducible --output-file /sbom.cdx.json "$VIRTUAL_ENV"

FROM scratch AS sbom
COPY --from=sbom-build /sbom.cdx.json /

FROM ${PYTHON_IMAGE} AS runtime
RUN groupadd --gid 10001 streamer \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/cache/streamer streamer \
    && install --directory --owner streamer --group streamer /var/cache/streamer
ENV PATH=/opt/streamer/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HOME=/var/cache/streamer/huggingface
COPY config/container.yaml /etc/streamer/streamer.yaml
WORKDIR /var/cache/streamer
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["streamer", "health", "--config", "/etc/streamer/streamer.yaml"]
ENTRYPOINT ["streamer"]
CMD ["run", "--config", "/etc/streamer/streamer.yaml"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/streamer /opt/streamer

# The last stage is what `docker build .` makes.
FROM runtime AS cpu
COPY --from=build-cpu /opt/streamer /opt/streamer
