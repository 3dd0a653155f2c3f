#!/bin/sh
# Checks the Dockerfiles and compose.yaml without an engine; says so where there is no Compose to ask.
set -eu
cd "$(dirname "$0")/.."
.venv/bin/hadolint docker/Dockerfile.batch docker/Dockerfile.reranker
if docker compose version >/dev/null 2>&1; then
    docker compose -f docker/compose.yaml config --quiet
elif command -v docker-compose >/dev/null; then
    docker-compose -f docker/compose.yaml config --quiet
else
    echo "docker/compose.yaml: not checked, neither 'docker compose' nor docker-compose is installed" >&2
fi
