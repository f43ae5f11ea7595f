"""Recognise what starts the processes of a pod: torchrun, accelerate, deepspeed, mpirun, or Python.

`launches` takes a container's command line and returns each launcher that it runs, with the numbers it was
given as they were written, and the last program that is not a launcher. `autotuner.job.processes`
evaluates the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from autotuner.job.shell import Command, ScriptTooLong, Variables, commands

_MAX_NESTED: Final = 4
"""Maximum depth of nested shells."""
_SHOWN: Final = 120
_PYTHON: Final = re.compile(r"(?:python|pypy)[\d.]*")
_SHELLS: Final = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh"})


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STEPS: Final = _names(
    """
    [ [[ : . source alias apk apt apt-get awk cat cd chmod chown cmake command conda cp curl date
    df du echo eval env exit export false find free git grep gunzip hostname ifconfig ip jq kill ln
    ls make mkdir mount mv nproc nslookup nvidia-smi pip pip3 pkill printenv printf pwd read return
    rm rsync sed seq service set shift shopt sleep ssh-keygen sudo sync tail tar tee test touch
    trap true ulimit umask unset until unzip wait wandb wget which yum
    """
)
"""Commands that a script runs before and after its training."""
_NO_LAUNCH: Final = _names(
    """
    echo printf which pip pip3 apt apt-get apk yum grep pkill kill export command cat ls rm cp mv
    test [ [[ git find sed tail touch for
    """
)
"""Commands whose arguments name programs without running them."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A call of a launcher, with numbers as text; None for an option that is not given.

    Args:
        name: The launcher, for people.
        text: The command, shortened.
        per_node: Processes that it starts on a node, which is a pod.
        total: Processes that it starts on all nodes together.
        nodes: Nodes that it waits for or connects to.
        is_alone: Whether its process group is this pod only.
        is_remote: Whether it also starts the processes of the other pods.
        is_unclear: Whether its options come from a source that cannot be read.
    """

    name: str
    text: str
    per_node: str | None = None
    total: str | None = None
    nodes: str | None = None
    is_alone: bool = False
    is_remote: bool = False
    is_unclear: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is not a launcher.

    `is_opaque` says that the processes it starts are unknown: it is a script in the image, a binary, the
    image's entrypoint, or a Python program in a loop.
    """

    text: str
    is_opaque: bool


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The launchers and the program that a container runs."""

    launches: tuple[Launch, ...]
    program: Program | None


def read_command_line(words: Sequence[str], variables: Variables) -> CommandLine:
    """Return what a command line runs; assignments in its scripts are added to `variables`.

    Args:
        words: Command and arguments, after Kubernetes has expanded `$(NAME)`.
        variables: The environment of the container.
    """
    seen = _Seen([], [])
    if words:
        _run(Command(tuple(words)), variables, seen, 0)
    return CommandLine(tuple(seen.launches), seen.programs[-1] if seen.programs else None)


@dataclass(frozen=True, slots=True)
class _Seen:
    launches: list[Launch]
    programs: list[Program]


def _run(command: Command, variables: Variables, seen: _Seen, depth: int) -> None:
    words: Sequence[str] = command.words
    first = _base(words[0])
    at = next((i for i, word in enumerate(words) if _is_known(word)), None)
    if at is None or first in _NO_LAUNCH:
        if first not in _STEPS and first not in _NO_LAUNCH and not words[0].startswith("-"):
            seen.programs.append(Program(_shown(words), is_opaque=True))
        return
    # Prefixes: exec, nohup, env, timeout, numactl, nsys profile, conda run, tini, srun, and others.
    words = words[at:]
    name = _base(words[0])
    if name in _SHELLS:
        _shell(words, variables, seen, depth)
        return
    if _PYTHON.fullmatch(name):
        words = _python(words, seen, is_repeated=command.is_background)
        if not words:
            return
        name = _base(words[0])
    seen.launches.append(_LAUNCHERS[name](words))


def _shell(words: Sequence[str], variables: Variables, seen: _Seen, depth: int) -> None:
    script: str | None = None
    for at, word in enumerate(words[1:], start=1):
        if word.startswith(("-", "+")) and not word.startswith("--"):
            if "c" in word:
                rest = [other for other in words[at + 1 :] if not other.startswith("-")]
                script = rest[0] if rest else ""
                break
        elif not word.startswith("--"):
            seen.programs.append(Program(_shown(words), is_opaque=True))
            return
    if script is None:
        return
    if depth >= _MAX_NESTED:
        seen.programs.append(Program(_shown(words), is_opaque=True))
        return
    try:
        inner = commands(script, variables)
    except ScriptTooLong:
        seen.programs.append(Program(_shown(words), is_opaque=True))
        return
    for each in inner:
        _run(each, variables, seen, depth + 1)


_MODULES: Final = {
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
    "torchrun": "torchrun",
    "torch.distributed.elastic.run": "torchrun",
    "accelerate.commands.launch": "accelerate-launch",
    "deepspeed": "deepspeed",
    "deepspeed.launcher.runner": "deepspeed",
    "horovod.runner.launch": "horovodrun",
}
_NO_TRAINING_MODULES: Final = frozenset({"pip", "venv", "nltk.downloader", "spacy", "http", "ensurepip"})


def _python(words: Sequence[str], seen: _Seen, *, is_repeated: bool) -> Sequence[str]:
    """Return the words of the launcher that Python runs (`python -m ...`); empty if it runs none."""
    at = 1
    while at < len(words) and words[at].startswith("-") and words[at] not in {"-m", "-c", "-"}:
        at += 2 if words[at] in {"-X", "-W"} else 1
    option = words[at] if at < len(words) else ""
    target = words[at + 1] if option == "-m" and at + 1 < len(words) else option
    if option == "-m" and target in _MODULES:
        return (_MODULES[target], *words[at + 2 :])
    if option == "-m" and target.startswith("accelerate.commands.accelerate"):
        return ("accelerate", *words[at + 2 :])
    if option != "-m" and _base(target) in _LAUNCHERS:
        return words[at:]
    if not (option == "-m" and target in _NO_TRAINING_MODULES):
        seen.programs.append(Program(_shown(words), is_opaque=is_repeated))
    return ()


def _torchrun(words: Sequence[str]) -> Launch:
    options = _options(words[1:], _TORCHRUN_FLAGS)
    return Launch(
        "torchrun",
        _shown(words),
        per_node=options.get("nproc_per_node"),
        nodes=options.get("nnodes"),
        is_alone="standalone" in options,
        is_unclear=_UNCLEAR in options,
    )


def _accelerate(words: Sequence[str]) -> Launch:
    rest = words[1:] if _base(words[0]) == "accelerate-launch" else words[2:]
    options = _options(rest, _ACCELERATE_FLAGS)
    return Launch(
        "accelerate launch",
        _shown(words),
        total=options.get("num_processes"),
        nodes=options.get("num_machines"),
        # The content of a configuration file is unknown.
        is_unclear=_UNCLEAR in options or ("config_file" in options and "num_processes" not in options),
    )


def _deepspeed(words: Sequence[str]) -> Launch:
    options = _options(words[1:], _DEEPSPEED_FLAGS)
    given = options.get("num_gpus")
    included = re.fullmatch(r"localhost:(\d+(?:,\d+)*)", options.get("include", ""))
    if given is None and included is not None:
        given = str(included[1].count(",") + 1)
    each_by_itself = "no_ssh" in options
    return Launch(
        "deepspeed",
        _shown(words),
        per_node=given,
        nodes=options.get("num_nodes"),
        is_alone=not each_by_itself and not {"hostfile", "H", "num_nodes"} & set(options),
        is_remote=not each_by_itself and bool({"hostfile", "H", "num_nodes"} & set(options)),
        is_unclear=_UNCLEAR in options or (given is None and bool({"hostfile", "H", "i"} & set(options))),
    )


def _mpirun(words: Sequence[str]) -> Launch:
    total = hosts = None
    for word, following in zip(words[1:], [*words[2:], ""], strict=True):
        if word in {"-np", "--np", "-n", "--n", "-c", "--num-proc"}:
            total = following
        elif (match := re.fullmatch(r"--?(?:np|num-proc)=(.*)", word)) is not None:
            total = match[1]
        elif word in {"-H", "--host", "-host", "--hostfile", "-hostfile", "-machinefile", "--hosts"}:
            hosts = following
        elif _PYTHON.fullmatch(_base(word)) or word.endswith(".py"):
            break
    return Launch(
        _base(words[0]), _shown(words), total=total, is_remote=hosts is not None, is_alone=hosts is None
    )


_LAUNCHERS: Final[Mapping[str, Callable[[Sequence[str]], Launch]]] = {
    "torchrun": _torchrun,
    "accelerate": _accelerate,
    "accelerate-launch": _accelerate,
    "deepspeed": _deepspeed,
    "mpirun": _mpirun,
    "mpiexec": _mpirun,
    "horovodrun": _mpirun,
}
_UNCLEAR: Final = "$"
_TORCHRUN_FLAGS: Final = frozenset(
    {"standalone", "m", "module", "no_python", "run_path", "use_env", "h", "help"}
)
_ACCELERATE_FLAGS: Final = _names(
    """
    cpu debug downcast_bf16 dynamo_use_dynamic dynamo_use_fullgraph dynamo_use_regional_compilation
    enable_cpu_affinity fp8_use_autocast_during_eval m module multi_gpu no_python no_tpu_cluster q
    quiet same_network tpu tpu_cluster tpu_use_sudo use_cpu use_deepspeed use_fsdp use_megatron_lm
    use_mps_device use_parallelism_config use_xpu ipex
    """
)
_DEEPSPEED_FLAGS: Final = _names(
    """
    no_ssh no_ssh_check no_local_rank no_python module m force_multi save_pid bind_cores_to_rank
    elastic_training
    """
)
_ABBREVIATED: Final = {"nproc": "nproc_per_node", "nn": "nnodes"}
"""Shortest form that argparse takes for an option of torchrun, and the whole."""


def _options(words: Sequence[str], flags: frozenset[str]) -> dict[str, str]:
    """Return a launcher's own options, up to the script, by name with underscores; `$` where unreadable."""
    found: dict[str, str] = {}
    at = 0
    while at < len(words):
        word = words[at]
        if not word.startswith("-"):
            if word.startswith("$"):
                found[_UNCLEAR] = word
            break
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        for short, whole in _ABBREVIATED.items():
            if name.startswith(short) and whole.startswith(name):
                name = whole
        if not equals and name not in flags:
            at += 1
            value = words[at] if at < len(words) else ""
        found[name] = value
        at += 1
    return found


def _is_known(word: str) -> bool:
    name = _base(word)
    return name in _LAUNCHERS or name in _SHELLS or _PYTHON.fullmatch(name) is not None


def _base(word: str) -> str:
    return word.rsplit("/", 1)[-1]


def _shown(words: Sequence[str]) -> str:
    text = re.sub(r"\0(\w+)\0", r"$\1", " ".join(words))
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
