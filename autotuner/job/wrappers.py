"""Find the command behind others that run it: `sudo`, `env A=1`, `timeout 1h`, `conda run` and the like.

Only what is known to run the rest of its words is skipped, with its options. A launcher's name among the
words of any other command may be an argument of it, such as the package of `pip install deepspeed`.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from autotuner.job.shell_words import Variables

_MOST: Final = 16
"""Maximum number of wrappers around one command."""


def names(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


_CONDA: Final = names("-n -p --name --prefix --cwd")
_UV: Final = names(
    """
    -p --python --with --with-editable --with-requirements --project --directory --extra --group --no-group
    --only-group --no-extra --env-file --index --index-url --extra-index-url --package --config-file
    """
)
_WRAPPERS: Final[Mapping[str, frozenset[str]]] = {
    "builtin": names(""),
    "catchsegv": names(""),
    "command": names(""),
    "conda run": _CONDA,
    "ddtrace-run": names(""),
    "dumb-init": names("-r --rewrite"),
    "env": names("-u -C --unset --chdir"),
    "exec": names("-a"),
    "gosu": names(""),
    "hatch run": names(""),
    "ionice": names("-c -n --class --classdata"),
    "mamba run": _CONDA,
    "micromamba run": _CONDA,
    "ncu": names("-o -k -c --set --section --metrics --export --launch-count --launch-skip --kernel-name"),
    "nice": names("-n --adjustment"),
    "nohup": names(""),
    "nsys profile": names(
        """
        -o -t -s -c -y -d -b -e -f -n -p -w -x --output --trace --sample --capture-range --delay --duration
        --backtrace --env-var --force-overwrite --stats --cuda-memory-usage --capture-range-end
        --cpuctxsw --cuda-event-trace --cuda-graph-trace --export --gpu-metrics-device --gpu-metrics-devices
        --gpu-metrics-set --gpuctxsw --kill --nic-metrics --nvtx-capture --python-backtrace
        --python-sampling --pytorch --session --session-new --show-output --stop-on-exit --wait
        """
    ),
    "numactl": names(
        """
        -N -m -C -i -p --cpunodebind --membind --physcpubind --cpubind --interleave --preferred
        """
    ),
    "opentelemetry-instrument": names(""),
    "pdm run": names("-p --project"),
    "pipenv run": names(""),
    "pixi run": names("-e --environment --manifest-path"),
    "poetry run": names("-C --directory -P --project"),
    "rye run": names(""),
    "setsid": names(""),
    "stdbuf": names("-i -o -e"),
    "su-exec": names(""),
    "sudo": names("-u -g -U -h -p -C -D -R -T --user --group --host --prompt --chdir"),
    "taskset": names(""),
    "time": names("-f -o --format --output"),
    "timeout": names("-k -s --kill-after --signal"),
    "tini": names("-p -e"),
    "unbuffer": names(""),
    "uv run": _UV,
    "xvfb-run": names("-n -s -e -f -p -w --server-num --server-args --error-file --auth-file"),
}
"""Commands that run the rest of their words, with those of their options that take the next word."""
_ARGUMENTS: Final = {"gosu": 1, "su-exec": 1, "taskset": 1, "timeout": 1}
"""Words between the options of a wrapper and the command: a user, a mask, a duration."""
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)

_UNSETTING: Final = names("-u --unset")
_MODULE: Final = names("-m --module")

_STEPS: Final = names(
    """
    [ [[ : . source alias apk apt apt-get aria2c awk aws az basename bc bg break case cat cd chgrp chmod chown
    cmake comm command conda continue cp curl cut date dd declare df dirname dnf dpkg du echo env exit export
    expr false find for free function gcloud getent git grep groupadd gsutil gunzip gzip head hf hostname
    huggingface-cli id ifconfig ip jobs jq kill kubectl ldconfig let ln local ls lscpu lspci make mamba md5sum
    micromamba mkdir mkfifo mktemp modprobe mount mv nc netstat nproc nslookup nvcc nvidia-smi nvtop openssl
    pdm ping pip3 pipenv pixi pkill poetry popd printenv printf ps pushd pwd rclone read readlink realpath
    return rm rocm-smi rsync s5cmd scp sed select seq service set shift shopt sleep sort source ssh-keygen
    stat stty sync sysctl tail tar tee test top touch tput tr trap true type ulimit umask uname uniq unset
    until unxz unzip update-alternatives useradd uv wait wandb wc wget which whoami yum zip
    """
)
_PIP: Final = re.compile(r"pip[\d.]*")


def is_step(words: Sequence[str]) -> bool:
    """Return whether a command only prepares a training or cleans up: whatever it names, it does not run."""
    name = base(words[0])
    return name in _STEPS or _PIP.fullmatch(name) is not None or words[0].startswith("-")


def unwrapped(words: Sequence[str], variables: Variables) -> tuple[Sequence[str], Variables]:
    """Return the command behind all wrappers and the variables that it sees."""
    for _ in range(_MOST):
        if not words:
            break
        name = next(
            (name for n in (1, 2) if (name := " ".join((base(words[0]), *words[1:n]))) in _WRAPPERS), ""
        )
        if not name:
            break
        if name == "command" and {"-v", "-V"} & set(words[1:2]):
            return (), variables
        at = _behind_options(name, words) + _ARGUMENTS.get(name, 0)
        own: dict[str, str | None] = {}
        while at < len(words) and (match := _ASSIGNMENT.fullmatch(words[at])) is not None:
            own[match[1]] = match[2]
            at += 1
        options = words[1:at] if name == "env" else ()
        variables = _left(variables, options) if options else variables
        variables = ChainMap(own, variables) if own else variables
        words = words[at:]
        if name == "uv run" and words and (words[0] in _MODULE or words[0].endswith(".py")):
            words = ("python", "-m", *words[1:]) if words[0] in _MODULE else ("python", *words)
    return words, variables


def _left(variables: Variables, options: Sequence[str]) -> Variables:
    """Return the variables that `env` leaves with its options."""
    if {"-i", "-", "--ignore-environment"} & set(options):
        return {}
    following = [after for option, after in pairwise(options) if option in _UNSETTING]
    removed = {*following, *(option.partition("=")[2] for option in options if option.startswith("--unset="))}
    return {key: value for key, value in variables.items() if key not in removed} if removed else variables


def _behind_options(name: str, words: Sequence[str]) -> int:
    at = 1 + name.count(" ")
    while at < len(words) and words[at].startswith("-") and len(words[at]) > 1:
        if name == "uv run" and words[at] in _MODULE:
            break
        if words[at] == "--":
            return at + 1
        at += 2 if words[at] in _WRAPPERS[name] else 1
    return at


def base(word: str) -> str:
    """Return the last part of a path."""
    return word.rsplit("/", 1)[-1]
