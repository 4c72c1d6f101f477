#!/bin/sh
# Pin every package by version and hash for all platforms and Pythons from 3.11 on: `make requirements`.
# Whoever wants newer versions: `make requirements UPGRADE=1`.  No file written here names an index.
set -eu
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}

compile() {
    target=$1
    shift
    "$python" -m uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
        --no-emit-index-url --no-emit-find-links \
        --custom-compile-command "make requirements" \
        --output-file "requirements/$target.txt" pyproject.toml "$@"
}

# dev is the whole; the smaller sets take its versions, so that one .venv can hold any of them.
compile dev --extra embedded --extra dev ${UPGRADE:+--upgrade}
compile demo --extra embedded --constraints requirements/dev.txt
# What the image holds.
compile runtime --extra migrate --constraints requirements/dev.txt
