#!/bin/sh
# Write the lock files of the image anew: `sh deploy/lock.sh`, with uv on the PATH, from the repository's root.
#
# PyTorch is left out, and so is what its PyPI build wants of CUDA: the image takes the CPU build, whose version
# stands in the Dockerfile.
set -eu

without_cuda=$(mktemp)
trap 'rm -f "$without_cuda"' EXIT
for package in torch triton cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 \
    nvidia-nccl-cu13 nvidia-nvshmem-cu13; do
    echo "$package"
done > "$without_cuda"

compile() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
        --custom-compile-command "sh deploy/lock.sh" "$@"
}

# What the CPU build of PyTorch itself needs, for its own requirements are left out with it.
printf '%s\n' filelock fsspec jinja2 networkx setuptools sympy typing-extensions |
    compile pyproject.toml - --excludes "$without_cuda" --output-file deploy/requirements.lock
echo hatchling | compile - --output-file deploy/build.lock
