#!/bin/sh
# Write the lock files of the image: `sh deploy/lock.sh`, with uv on the PATH, from the repository's root.
set -eu

compile() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
        --custom-compile-command "sh deploy/lock.sh" "$@"
}

compile pyproject.toml --output-file deploy/requirements.lock
echo hatchling | compile - --output-file deploy/build.lock
