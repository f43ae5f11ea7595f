"""Read the options of what starts the processes of a pod: torchrun, accelerate, deepspeed, and others.

A launcher's numbers are kept as they were written; `autotuner.job.pod_processes` evaluates them.
`autotuner.job.command_line` finds the launchers in a container's command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from autotuner.job.wrappers import base, names

_SHOWN: Final = 120
_MAX_NESTED: Final = 4
"""Maximum depth of the expansions in one word."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A call of a launcher, with numbers as text; None for an option that is not given.

    Args:
        name: The launcher, for people.
        text: The command, shortened.
        per_node: Processes that it starts on a node, which is a pod.
        total: Processes that it starts on all nodes together.
        nodes: Nodes that it waits for or connects to.
        rank: The rank of its node, if it does not get one at the rendezvous.
        excluded: GPUs of the pod that it leaves out.
        is_alone: Whether its process group is this pod only.
        is_remote: Whether it also starts the processes of the other pods.
        is_unclear: Whether its options come from a source that cannot be read.
        needs_gpus: Whether it starts one process only, whatever its total, if it sees no several GPUs.
        splits: Options of the script, or its own, with which several processes may share a part of the batch.
        sizes: Options of the script that have a part in the size of its batch, by name with underscores.
        environment: The variables that launchers read, as they are set for this one; None if unknown.
        branches: The branches of `if` and `case` that it is in, as in `Command`.
    """

    name: str
    text: str
    per_node: str | None = None
    total: str | None = None
    nodes: str | None = None
    rank: str | None = None
    excluded: int = 0
    is_alone: bool = False
    is_remote: bool = False
    is_unclear: bool = False
    needs_gpus: bool = False
    splits: Mapping[str, str] = field(default_factory=dict[str, str])
    sizes: Mapping[str, str] = field(default_factory=dict[str, str])
    environment: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    branches: tuple[tuple[object, int], ...] = ()


def _torchrun(words: Sequence[str]) -> Launch | None:
    options = _options(words[1:], _TORCHRUN_FLAGS)
    return _launched(
        "torchrun",
        words,
        options,
        per_node=options.get("nproc_per_node"),
        nodes=options.get("nnodes"),
        is_alone="standalone" in options,
    )


def _accelerate(words: Sequence[str]) -> Launch | None:
    if base(words[0]) == "accelerate" and tuple(words[1:2]) != ("launch",):
        return None
    options = _options(words[1 if base(words[0]) == "accelerate-launch" else 2 :], _ACCELERATE_FLAGS)
    # With --cpu accelerate runs the script once in each pod, whatever number is given (commands/launch.py).
    is_one = "cpu" in options and "mpirun_hostfile" not in options
    # The content of a configuration file is unknown.
    is_hidden = {"config_file", "gpu_ids"} & options.keys() and "num_processes" not in options
    return _launched(
        "accelerate launch",
        words,
        options,
        per_node="1" if is_one else None,
        total=None if is_one else options.get("num_processes"),
        nodes=options.get("num_machines"),
        is_unclear=bool(is_hidden) and not is_one,
        needs_gpus=not ({"config_file", "mpirun_hostfile"} | _ACCELERATE_MODES) & options.keys(),
    )


_SLOTS: Final = re.compile(r"localhost:(\d+(?:,\d+)*)")


def _deepspeed(words: Sequence[str]) -> Launch | None:
    options = _options(words[1:], _DEEPSPEED_FLAGS)
    given = options.get("num_gpus", options.get("num_accelerators"))
    included = options.get("include", options.get("i"))
    excluded = options.get("exclude", options.get("e"))
    slots, left = (_SLOTS.fullmatch(each or "") for each in (included, excluded))
    if given is None and slots is not None:
        given = str(slots[1].count(",") + 1)
    each_by_itself = "no_ssh" in options
    others = bool({"hostfile", "H", "num_nodes"} & options.keys())
    is_hidden = (included is not None and slots is None) or (excluded is not None and left is None)
    return _launched(
        "deepspeed",
        words,
        options,
        per_node=given,
        nodes=options.get("num_nodes"),
        excluded=left[1].count(",") + 1 if left is not None else 0,
        is_alone=not each_by_itself and not others,
        is_remote=not each_by_itself and others,
        is_unclear=given is None and (is_hidden or bool({"hostfile", "H"} & options.keys())),
    )


def _composer(words: Sequence[str]) -> Launch | None:
    options = _options(words[1:], _COMPOSER_FLAGS)
    total = options.get("world_size")
    return _launched(
        "composer",
        words,
        options,
        per_node=options.get("nproc_per_node", options.get("n")),
        total=total,
        is_alone=total is None,
    )


def _tune(words: Sequence[str]) -> Launch | None:
    """Return what `tune run` of torchtune launches: torchrun with its options, or else one process."""
    options = _options(words[2:], _TORCHRUN_FLAGS)
    if tuple(words[1:2]) != ("run",):
        return None
    return _launched(
        "tune run",
        words,
        options,
        per_node=options.get("nproc_per_node", "1"),
        nodes=options.get("nnodes"),
        is_alone="rdzv_endpoint" not in options,
    )


def _of_nodes(words: Sequence[str]) -> Launch | None:
    """Return the launch of `colossalai run`, `lightning run model`, `fabric run` or `ipexrun`."""
    name = base(words[0])
    before = {"lightning": ("run", "model"), "colossalai": ("run",), "fabric": ("run",)}.get(name, ())
    if tuple(words[1 : 1 + len(before)]) != before:
        return None
    options = _options(words[1 + len(before) :], _OTHER_FLAGS)
    given = [options[key] for key in ("nproc_per_node", "nprocs_per_node", "devices") if key in options]
    nodes = [options[key] for key in ("nnodes", "num_nodes") if key in options]
    # Without such an option ipexrun starts one process.
    one = "1" if name == "ipexrun" and not nodes and not _INSTANCES & options.keys() else None
    return _launched(
        " ".join((name, *before)),
        words,
        options,
        per_node=given[0] if given else one,
        nodes=nodes[0] if nodes else None,
        is_alone=not nodes,
        is_unclear=bool({"hostfile", "host", "hosts"} & options.keys()),
    )


def _launched(name: str, words: Sequence[str], options: Mapping[str, str], **found: Any) -> Launch | None:  # noqa: ANN401 (fields of Launch)
    """Return a launch; None if the command only prints its help."""
    if {"h", "help", "version"} & options.keys():
        return None
    is_unclear = found.pop("is_unclear", False) or _UNCLEAR in options
    is_static = options.get("rdzv_backend", "static") == "static"
    rank = options.get("node_rank", options.get("machine_rank")) if is_static else None
    return Launch(name, shown(words), is_unclear=is_unclear, rank=rank, **found)


LAUNCHERS: Final[Mapping[str, Callable[[Sequence[str]], Launch | None]]] = {
    "torchrun": _torchrun,
    "accelerate": _accelerate,
    "accelerate-launch": _accelerate,
    "deepspeed": _deepspeed,
    "composer": _composer,
    "tune": _tune,
    "colossalai": _of_nodes,
    "lightning": _of_nodes,
    "fabric": _of_nodes,
    "ipexrun": _of_nodes,
}
_UNCLEAR: Final = "$"
_TORCHRUN_FLAGS: Final = names("standalone m module no_python run_path use_env virtual_local_rank h help")
_ACCELERATE_FLAGS: Final = names(
    """
    cpu debug downcast_bf16 dynamo_use_dynamic dynamo_use_fullgraph dynamo_use_regional_compilation
    enable_cpu_affinity fp8_use_autocast_during_eval m module multi_gpu no_python no_tpu_cluster q
    quiet same_network tpu tpu_cluster tpu_use_sudo use_cpu use_deepspeed use_fsdp use_megatron_lm
    use_mps_device use_parallelism_config use_xpu ipex h help
    """
)
_ACCELERATE_MODES: Final = names(
    "multi_gpu tpu use_deepspeed use_fsdp use_megatron_lm use_parallelism_config"
)
"""Options with which `accelerate launch` starts all processes, whatever devices it sees."""
_DEEPSPEED_FLAGS: Final = names(
    """
    no_ssh no_ssh_check no_local_rank no_python module m force_multi save_pid bind_cores_to_rank
    elastic_training h help
    """
)
_COMPOSER_FLAGS: Final = names("m module_mode c command_mode v verbose version h help")
_INSTANCES: Final = names(
    """
    ccl_worker_count distributed latency_mode logical_cores_for_ccl multi_instance ninstance ninstances
    throughput_mode
    """
)
_OTHER_FLAGS: Final = names(
    "distributed h help m module no_python enable_tcmalloc enable_jemalloc logical_cores"
)
_ABBREVIATED: Final = {
    "nproc": "nproc_per_node",
    "nn": "nnodes",
    "num_a": "num_accelerators",
    "num_g": "num_gpus",
    "num_n": "num_nodes",
}
"""Shortest form that argparse takes for an option of torchrun or deepspeed, and the whole."""
_EXPANSION: Final = re.compile(r"\$(?:\([^()]*\)|\{[^{}]*\}|\w+)")


def _options(words: Sequence[str], flags: frozenset[str]) -> dict[str, str]:
    """Return a launcher's own options, up to the script, by name with underscores; `$` where unreadable."""
    found: dict[str, str] = {}
    at = 0
    while at < len(words):
        word = words[at]
        if not word.startswith("-"):
            if word.startswith("$") and not _is_path(word):
                found[_UNCLEAR] = word
            break
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        for short, whole in _ABBREVIATED.items():
            if name.startswith(short) and whole.startswith(name):
                name = whole
        following = "".join(words[at + 1 : at + 2])
        # What looks like an option is no value for argparse, and a script is none of these options.
        if not equals and name not in flags and following[:1] != "-" and not following.endswith(".py"):
            at += 1
            value = following
        found[name] = value
        at += 1
    return found


def _is_path(word: str) -> bool:
    """Return whether a word with variables is one file, such as `$DIR/train.py`, and no list of options."""
    for _ in range(_MAX_NESTED):
        word = _EXPANSION.sub("", word)
    return "$" not in word and (word.startswith("/") or word.endswith(".py"))


def shown(words: Sequence[str]) -> str:
    """Return a command for people, shortened."""
    text = re.sub(r"\0(\w+)\0", r"$\1", " ".join(words))
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
