# Serving image: no torch, no compiler, no root. CPU by default; GPU by --build-arg ENGINE=gpu.
# What else it can do by --build-arg EXTRAS=http,tracing (extras of pyproject.toml).
#
#   docker build -t instructrec .
#   docker run --read-only -p 50051:50051 -v "$PWD/bundle:/bundle:ro" instructrec
#
# docs/docker.md: the GPU image, and how to build without a Docker engine.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
ARG ENGINE=cpu
ARG EXTRAS=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=/source/constraints.txt
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY instructrec_deploy instructrec_deploy
COPY training training
# What serving never reads goes: pip itself, the tests that numpy ships, compiled caches.
RUN python -m venv /opt/instructrec \
    && /opt/instructrec/bin/python -m pip install --quiet --progress-bar off ".[${ENGINE}${EXTRAS:+,${EXTRAS}}]" \
    && /opt/instructrec/bin/python -m pip uninstall --quiet --yes pip setuptools \
    && find /opt/instructrec -name tests -path '*/numpy/*' -type d -prune -exec rm -rf {} + \
    && find /opt/instructrec -name __pycache__ -type d -prune -exec rm -rf {} + \
    && /opt/instructrec/bin/python -m compileall -q /opt/instructrec/lib

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin instructrec
COPY --from=build /opt/instructrec /opt/instructrec
ENV PATH=/opt/instructrec/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1
USER 10001
WORKDIR /
EXPOSE 50051 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["instructrec", "health", "--address", "127.0.0.1:50051"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["instructrec"]
# Inside a container the address must be open; who may reach it is the container network's matter.
CMD ["serve", "/bundle", "--host", "0.0.0.0", "--allow-insecure", "--metrics-port", "9090"]
