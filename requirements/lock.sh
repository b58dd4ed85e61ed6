#!/usr/bin/env bash
# Pins requirements/*.in, with hashes, for every interpreter from 3.11 on: `make lock`.
set -euo pipefail
cd "$(dirname "$0")"
lock() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header "$@"; }
lock runtime.in -o runtime.txt
lock telemetry.in -c runtime.txt -o telemetry.txt
lock dev.in -c runtime.txt -o dev.txt
