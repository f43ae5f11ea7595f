"""Recognise what a container's command line runs: launchers, and programs that are none.

`read_command_line` follows shells, scripts in strings and here-documents, and returns each launcher that runs
and each other program. `autotuner.job.pod_processes` counts their processes.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from autotuner.job.batch_options import is_size
from autotuner.job.gpu_counts import VISIBLE
from autotuner.job.here_documents import without_documents
from autotuner.job.launchers import LAUNCHERS, Launch, shown
from autotuner.job.program_options import (
    COUNTS,
    NODES,
    OF_SCRIPTS,
    STARTED,
    is_strategy,
    numbers_in,
    pairs_in,
    sizes_in,
    splits_in,
)
from autotuner.job.shell import Branches, Command, commands, exported, is_exported
from autotuner.job.shell_words import MAX_VALUE, ScriptTooLong, Variables
from autotuner.job.wrappers import base, is_step, names, unwrapped

_MAX_NESTED: Final = 4
"""Maximum depth of nested shells."""
_PYTHON: Final = re.compile(r"(?:python|pypy)[\d.]*")
_NAMED: Final = names(
    """
    accelerate deepspeed horovodrun mpiexec mpirun torch.distributed.launch torch.distributed.run torchrun
    """
)
"""Launchers whose names mean nothing else."""
_STARTERS: Final = names("flux jsrun parallel ray srun torchx xargs")
"""Commands that start any number of processes, by options that are not read here."""
_GROUPS: Final = names(
    "autotrain axolotl litgpt llamafactory llamafactory-cli lmf megatron swift trl xtuner yolo"
)
"""Programs that start a process group of their own, and take its nodes from NNODES or from options."""
_ANYTHING: Final = re.compile(r"\$[^/]*$|\S*\s")
_SHELLS: Final = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh"})
_AS_ANOTHER: Final = frozenset({"su", "runuser"})
_ENTRYPOINT: Final = re.compile(r"(?:[\w.-]*[_-])?entrypoint(?:\.sh)?")
"""Scripts of images that by custom end with `exec "$@"`."""
_SETTING: Final = re.compile(r"^(\w{1,60}):[ \t]*(\S.{0,200}?)[ \t]*$", re.MULTILINE)
"""A line at the top of a YAML file."""
_IS_PYTHON: Final = re.compile(r"^\s*(?:import\s+\w|from\s+[\w.]+\s+import\s)", re.MULTILINE)
_NAMED_VALUE: Final = re.compile(r"(?<![\w.])\"?([A-Za-z][\w.]{0,100})\"?:[ \t]{1,20}")
"""What a configuration file has in front of a value."""
_CALCULATION: Final = r"\$\(\((?:[^()\n]|\((?:[^()\n]|\([^()\n]{0,60}\)){0,60}\)){1,100}\)\)"
_ENTRY: Final = re.compile(
    rf"(?<![\w.])\"?([A-Za-z]\w{{0,60}})\"?:[ \t]{{1,20}}({_CALCULATION}|[^\s,}}#]{{1,60}})"
)
"""An entry of a configuration file of YAML or JSON."""
_EDITED: Final = re.compile(rf"\b([A-Za-z]\w{{0,60}})[\"']?[ ]?[:=][ ]?[\"']?({_CALCULATION}|[\w$]{{1,60}})")
"""An entry that a program of an editor writes: `s/name: .*/name: 8/`, `.name = 8`."""
_EDITORS: Final = names("jq sed yq")
_DEFAULT: Final = "default_config.yaml"
"""The file that accelerate reads unless its options name another one."""
_HOSTS: Final = "/job/hostfile"
"""The file that deepspeed reads if it exists (deepspeed/launcher/runner.py)."""
_MAX_COMMANDS: Final = 20_000
"""Maximum number of commands that are read: a file that was written may run many times."""
_INHERITED: Final = (*VISIBLE, "PET_NNODES", "PET_NPROC_PER_NODE")


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is not a known launcher.

    Args:
        text: The command, shortened.
        is_opaque: Whether the processes it starts are unknown: it is a script in the image, a binary, the
            image's entrypoint, or a Python program that starts others or runs in a loop.
        is_script: Whether it is a shell script, or a command that may run another one.
        names_launcher: Whether it starts others, or a launcher is among its words: it is what trains.
        numbers: Its options that may be a number of processes, by name with underscores.
        splits: Its options with which several processes may share a part of the batch.
        sizes: Its options that have a part in the size of the batch.
        world_size: WORLD_SIZE as it is set for it; None if it is not, or to something unknown.
        per_node: NPROC_PER_NODE in the same way, from which ms-swift and others take their processes.
        nodes: NNODES in the same way.
        branches: The branches of `if` and `case` that it is in, as in `Command`.
        trains: Whether it is a Python program that may be the training.
        is_group: Whether it starts a process group of its own; without options for it, of its pod only.
    """

    text: str
    is_opaque: bool
    is_script: bool = False
    names_launcher: bool = False
    numbers: Mapping[str, str] = field(default_factory=dict[str, str])
    splits: Mapping[str, str] = field(default_factory=dict[str, str])
    sizes: Mapping[str, str] = field(default_factory=dict[str, str])
    world_size: str | None = None
    per_node: str | None = None
    nodes: str | None = None
    branches: Branches = ()
    trains: bool = False
    is_group: bool = False


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The launchers and the programs that a container runs, in order.

    Of the files that its scripts write, `splits` are options with which processes may share a part of the
    batch, and `sizes` those with a part in its size.
    """

    launches: tuple[Launch, ...]
    programs: tuple[Program, ...]
    splits: Mapping[str, str] = field(default_factory=dict[str, str])
    sizes: Mapping[str, str] = field(default_factory=dict[str, str])


def read_command_line(words: Sequence[str], variables: Variables) -> CommandLine:
    """Return what a command line runs; assignments in its scripts are added to `variables`.

    Args:
        words: Command and arguments, after Kubernetes has expanded `$(NAME)`.
        variables: The environment of the container.
    """
    seen = _Seen()
    if words:
        _run(Command(tuple(words), variables), seen, 0)
    return CommandLine(tuple(seen.launches), tuple(seen.programs), seen.splits, seen.sizes)


def entrypoint(words: Sequence[str], *, has_recipe: bool = False) -> Program:
    """Return the program of an image, with the words that a container gives it.

    `has_recipe` says that these are a recipe of torchtune.
    """
    numbers = numbers_in(words, COUNTS | STARTED)
    splits, sizes = splits_in(words), sizes_in(words, has_recipe=has_recipe)
    return Program("the image's entrypoint", True, numbers=numbers, splits=splits, sizes=sizes)


@dataclass(slots=True)
class _Seen:
    """What was found; `files` are the scripts that were written from a here-document, by name.

    `documents` are here-documents by the variable that they were read into, such as `$SCRIPT`.
    `is_in_background` says that a Python program runs in the background, and `has_hosts` that deepspeed's
    default file of hosts is written.
    """

    launches: list[Launch] = field(default_factory=list[Launch])
    programs: list[Program] = field(default_factory=list[Program])
    files: dict[str, str] = field(default_factory=dict[str, str])
    documents: dict[str, str] = field(default_factory=dict[str, str])
    splits: dict[str, str] = field(default_factory=dict[str, str])
    sizes: dict[str, str] = field(default_factory=dict[str, str])
    commands: int = 0
    is_in_background: bool = False
    has_hosts: bool = False


def _run(command: Command, seen: _Seen, depth: int) -> None:
    launches, programs = len(seen.launches), len(seen.programs)
    _find(command, seen, depth)
    around = command.branches
    if around:
        # An index from before may be past the end: mpirun takes back what it starts.
        for at in range(launches, len(seen.launches)):
            launch = seen.launches[at]
            seen.launches[at] = replace(launch, branches=around + launch.branches)
        for at in range(programs, len(seen.programs)):
            program = seen.programs[at]
            seen.programs[at] = replace(program, branches=around + program.branches)


def _find(command: Command, seen: _Seen, depth: int) -> None:
    words, variables = unwrapped(command.words, command.variables)
    if len(words) > 1 and _ENTRYPOINT.fullmatch(base(words[0])) and _is_known(words[1]):
        words = words[1:]
    if tuple(words[1:2]) == ("-m",):
        # Whatever takes such a module is a Python, as /isaac-sim/python.sh and $PYTHON are.
        words = ("python", *words[1:]) if "".join(words[2:3]) in _MODULES else words
    if not words:
        return
    name = base(words[0])
    _keep(words, command, seen)
    if depth > _MAX_NESTED:
        seen.programs.append(_opaque(words, variables))
    elif name in _SHELLS:
        _shell(words, replace(command, variables=variables), seen, depth)
    elif (script := _script_of(words, seen)) is not None:
        keeps = name in {"eval", ".", "source"}
        own = variables if keeps else exported(variables)
        is_run = not keeps and name not in _AS_ANOTHER
        _script(script, Command(tuple(words), own), words if is_run else None, seen, depth)
    elif name in _MPI:
        _of_mpi(words, variables, seen, depth)
    elif _is_known(name):
        _launch(words, replace(command, variables=variables), seen)
    elif not is_step(words):
        seen.programs.append(_opaque(words, variables))


def _keep(words: Sequence[str], command: Command, seen: _Seen) -> None:
    """Keep the file that a command writes, or the document that it reads into a variable."""
    if words[0] == "read" and command.document is not None:
        seen.documents["$" + words[-1]] = command.document
    elif words[0] in {"echo", "printf"} and command.output and words[-1] in seen.documents:
        seen.files[base(command.output)] = seen.documents[words[-1]]
    if command.document is not None and (file := _written(words, command.output)):
        seen.files[base(file)] = command.document
        if _IS_PYTHON.search(command.document) is None:
            entries = ((name.lower(), text) for name, text in _ENTRY.findall(command.document))
            seen.sizes |= {name: text for name, text in entries if is_size(name)}
    elif base(words[0]) in _EDITORS:
        edited = (entry for word in words[1:] for entry in _EDITED.findall(word))
        seen.sizes |= {name.lower(): text for name, text in edited if is_size(name.lower())}
    elif base(command.output or words[-1]) == _DEFAULT and not _is_known(words[0]):
        # Written in another way: the content is unknown.
        seen.files[_DEFAULT] = ""
    seen.has_hosts = seen.has_hosts or _HOSTS in {command.output, words[-1]}


def _launch(words: Sequence[str], command: Command, seen: _Seen) -> None:
    if len(words) == 1 and command.document is None:
        # A pattern of `case`, or an interactive Python.
        return
    if _PYTHON.fullmatch(base(words[0])):
        words = _python(words, command, seen)
    words = _with_written_options(words, command.variables, seen)
    launch = LAUNCHERS[base(words[0])](words) if words else None
    if launch is not None:
        # Several of them in a loop may be a group, or trainings of their own.
        is_unclear = launch.is_unclear or command.is_repeated
        splits, sizes = splits_in(words), sizes_in(words, has_recipe=launch.name == "tune run")
        launch = replace(launch, splits=splits, sizes=sizes, is_unclear=is_unclear)
        seen.launches.append(_with_environment(launch, command.variables))


def _with_written_options(words: Sequence[str], variables: Variables, seen: _Seen) -> Sequence[str]:
    """Return the words of a launcher with what its file says, if the script has written that."""
    name = base(words[0]) if words else ""
    if name == "deepspeed" and seen.has_hosts:
        # Options of the command line come later, and hold.
        return (words[0], f"--hostfile={_HOSTS}", *words[1:])
    if name not in {"accelerate", "accelerate-launch"}:
        return words
    at = next((i for i, word in enumerate(words) if re.match(r"--config[_-]file\b", word)), len(words))
    if at == len(words) and _DEFAULT in seen.files and words[1:]:
        at = 1 if name == "accelerate-launch" else 2
        words = (*words[:at], f"--config_file={_DEFAULT}", *words[at:])
    file = "".join(words[at : at + 1]).partition("=")[2] or "".join(words[at + 1 : at + 2])
    text = seen.files.get(base(file), "")
    found = dict(_SETTING.findall(text)) if len(text) <= MAX_VALUE else {}
    if "num_processes" not in found or found.get("gpu_ids", "all") != "all" or found.get("use_cpu") == "true":
        return words
    options = [] if found.get("distributed_type", "NO").strip("\"'") == "NO" else ["--multi_gpu"]
    for name in ("num_processes", "num_machines"):
        for each in commands(f": {found.get(name, '1')}", ChainMap({}, variables)):
            options.append(f"--{name}={' '.join(each.words[1:])}")
    first = 1 if base(words[0]) == "accelerate-launch" else 2
    # Options of the command line come later, and hold.
    rest = (*words[first:at], *words[at + (1 if "=" in words[at] else 2) :])
    return (*words[:first], *options, *rest)


def _script_of(words: Sequence[str], seen: _Seen) -> str | None:
    """Return the script that a command runs, if it is in the command line; None if it runs none."""
    name = base(words[0])
    if name == "eval":
        return " ".join(words[1:])
    if name in _AS_ANOTHER:
        at = next((i for i, word in enumerate(words) if word in {"-c", "--command"}), len(words))
        return "".join(words[at + 1 : at + 2])
    return seen.files.get(base("".join(words[1:2])) if name in {".", "source"} else name)


def _with_environment(launch: Launch, variables: Variables) -> Launch:
    passed = (name for name in _INHERITED if name in variables and is_exported(variables, name))
    return replace(launch, environment={name: variables[name] for name in passed})


def _passed(variables: Variables, name: str) -> str | None:
    return variables.get(name) if is_exported(variables, name) else None


def _written(words: Sequence[str], output: str) -> str:
    """Return the file that a command writes what it reads to, or an empty text."""
    if base(words[0]) == "tee":
        return words[-1]
    return output if base(words[0]) == "cat" else ""


def _opaque(words: Sequence[str], variables: Variables) -> Program:
    name = base(words[0])
    pieces = {base(piece) for word in words[1:] for piece in word.split()}
    names_launcher = name in _STARTERS or bool(_NAMED & pieces)
    # A variable, or a name of several words, may stand for any command.
    is_any = _ANYTHING.match(words[0]) is not None or name.endswith(".sh") or name in _SHELLS
    may_run = names_launcher or is_any or any(map(_is_known, pieces))
    numbers = numbers_in(words, COUNTS | STARTED)
    return Program(
        shown(words),
        is_opaque=True,
        is_script=may_run,
        names_launcher=names_launcher,
        numbers=numbers,
        splits=splits_in(words),
        sizes=sizes_in(words),
        per_node=_passed(variables, "NPROC_PER_NODE"),
        nodes=_passed(variables, "NNODES"),
        is_group=name in _GROUPS,
    )


def _shell(words: Sequence[str], command: Command, seen: _Seen, depth: int) -> None:
    has_script, at = False, 1
    while at < len(words) and words[at].startswith(("-", "+")) and words[at] not in {"-", "--"}:
        option = words[at]
        at += 1
        if option.startswith("--"):
            at += option in {"--rcfile", "--init-file"}
        else:
            has_script = has_script or "c" in option
            # The names of settings, as in `-euo pipefail`.
            at += option.count("o") + option.count("O")
    at += at < len(words) and words[at] in {"-", "--"}
    given = words[at] if at < len(words) else None
    if not has_script and given is not None and base(given) not in seen.files:
        seen.programs.append(_opaque(words, command.variables))
        return
    text = given if has_script else command.document
    if not has_script and given is not None:
        text = seen.files[base(given)]
    # What this shell sets is lost when it ends.
    own = Command(tuple(words), exported(command.variables))
    arguments = words[at + 1 :] if has_script else words[at:]
    _script(text or "", own, arguments or [base(words[0])], seen, depth)


def _script(text: str, command: Command, arguments: Sequence[str] | None, seen: _Seen, depth: int) -> None:
    words, variables = command.words, command.variables
    if depth >= _MAX_NESTED:
        seen.programs.append(_opaque(words, variables))
        return
    try:
        for document in without_documents(text)[1]:
            if _IS_PYTHON.search(document) is None:
                named = _NAMED_VALUE.sub(r"\1=", document)
                seen.splits |= splits_in([word.rstrip("\"',]}") for word in named.split()])
        for each in commands(text, variables, arguments):
            seen.commands += 1
            if seen.commands > _MAX_COMMANDS:
                raise ScriptTooLong("its commands")  # noqa: TRY301 (as if it were that long)
            _run(each, seen, depth + 1)
    except ScriptTooLong:
        seen.launches.append(Launch(base(words[0]), shown(words), is_unclear=True))


_MODULES: Final = {
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
    "torchrun": "torchrun",
    "torch.distributed.elastic.run": "torchrun",
    "accelerate.commands.launch": "accelerate-launch",
    "deepspeed": "deepspeed",
    "deepspeed.launcher.runner": "deepspeed",
    "horovod.runner.launch": "horovodrun",
    "composer": "composer",
    "composer.cli.launcher": "composer",
    "lightning": "lightning",
    "lightning.fabric.cli": "fabric",
    "torchtune._cli.tune": "tune",
    "intel_extension_for_pytorch.launch": "ipexrun",
    "intel_extension_for_pytorch.cpu.launch": "ipexrun",
}
_NO_TRAINING_MODULES: Final = names(
    """
    compileall ensurepip http http.server nltk.downloader pip py_compile site spacy torch.utils.collect_env
    venv
    """
)
_STARTING: Final = re.compile(
    r"(?:autotrain|axolotl|colossalai|lightning|litgpt|llamafactory|openrlhf|paddle|pytorch_lightning|ray|swift"
    r"|torch\.backends\.xeon|torch_xla|torchx|trl|verl|xtuner)\..*"
    r"|(?:.*[._-])?(?:launch|launcher|multiproc|(?<!x[._-])ray|spawn)(?:[._-].*)?",
    re.DOTALL,
)
"""Modules and scripts that start processes by themselves."""
SPAWNS: Final = r"\bspawn\(|start_processes\(|\bProcess\(\s{0,40}target|notebook_launcher\("
"""Pattern of a call that starts other processes, which may train."""
_SPAWNING: Final = re.compile(
    rf"{SPAWNS}|elastic_launch\("
    r"|torch\.distributed\.(?:run|launch)\b|\btorchrun\b|\baccelerate[\"', ]{1,4}launch\b|TorchTrainer\("
    r"|TorchDistributor\(|\bnprocs\s{0,4}=|\bdevices\s{0,4}=\s{0,4}(?:[2-9]|1\d|-1|[\"']auto)"
)
"""Code that starts other processes that train."""
_SWITCH: Final = re.compile(r"-[bBdEiIOPqRsSuvx]*([mc])(.*)", re.DOTALL)


def _python(words: Sequence[str], command: Command, seen: _Seen) -> Sequence[str]:
    """Return the words of the launcher that Python runs (`python -m ...`); empty if it runs none."""
    at = 1
    switch = None
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        switch = _SWITCH.fullmatch(words[at])
        if switch is not None:
            break
        at += 2 if words[at] in {"-X", "-W"} else 1
    is_module = switch is not None and switch[1] == "m"
    if switch is not None:
        at, target = (at, switch[2]) if switch[2] else (at + 1, "".join(words[at + 1 : at + 2]))
    else:
        target = "".join(words[at : at + 1])
    if is_module and target in _MODULES:
        return (_MODULES[target], *words[at + 1 :])
    if is_module and target.startswith("accelerate.commands.accelerate"):
        return ("accelerate", *words[at + 1 :])
    if switch is None and base(target) in LAUNCHERS:
        return words[at:]
    if not (is_module and target in _NO_TRAINING_MODULES):
        is_code = switch is not None and not is_module
        stem = base(target).removesuffix(".py")
        starts = not is_code and _STARTING.fullmatch(f"{stem}." if is_module else stem) is not None
        # The code of a program that the manifest itself contains.
        code = (
            target if is_code else command.document if target in {"", "-"} else seen.files.get(base(target))
        )
        starts = starts if code is None else _SPAWNING.search(code) is not None
        numbers = {} if is_code else numbers_in(words[at:], COUNTS | OF_SCRIPTS)
        if not is_code and not numbers.keys() - NODES:
            numbers |= {name: text for name, text in pairs_in(words[at:]) if is_strategy(name, text)}
        # Options of Python in front of its script, such as `-m torch.distributed.launch`.
        is_hidden = target.startswith("$") and any(word.endswith(".py") for word in words[at + 1 :])
        # A profiler, or a debugger, that runs a launcher.
        runs_one = any(word == "-m" and after in _MODULES for word, after in pairwise(words[at:]))
        starts = starts or command.is_repeated or is_hidden or runs_one
        is_another = command.is_background and seen.is_in_background
        seen.is_in_background = seen.is_in_background or command.is_background
        seen.programs.append(
            Program(
                shown(words),
                is_opaque=starts or command.is_background,
                is_script=starts or is_another,
                names_launcher=starts,
                numbers=numbers,
                splits={} if is_code else splits_in(words[at:]),
                sizes={} if is_code else sizes_in(words[at:]),
                world_size=_passed(command.variables, "WORLD_SIZE"),
                trains=not is_code,
                nodes=_passed(command.variables, "NNODES"),
                is_group=is_module and target.partition(".")[0] in _GROUPS,
            )
        )
    return ()


_MPI: Final = frozenset({"mpirun", "mpiexec", "horovodrun"})


def _of_mpi(words: Sequence[str], variables: Variables, seen: _Seen, depth: int) -> None:
    """Add the processes of mpirun, or those of the launcher that it starts once."""
    total = hosts = None
    program: Sequence[str] = ()
    for at, word in enumerate(words[1:], start=1):
        # A later number is an option of the program, whose name may be any.
        if word in {"-np", "--np", "-n", "--n", "-c", "--num-proc"}:
            total = "".join(words[at + 1 : at + 2]) if total is None else total
        elif (match := re.fullmatch(r"--?(?:np|num-proc)=(.*)", word)) is not None:
            total = match[1] if total is None else total
        elif word in {"-H", "--host", "-host", "--hostfile", "-hostfile", "-machinefile", "--hosts"}:
            hosts = word
        elif _is_known(word) or word.endswith(".py"):
            program = words[at:]
            break
    launches, programs = len(seen.launches), len(seen.programs)
    if program:
        _run(Command(tuple(program), variables), seen, depth + 1)
    inner = seen.launches[launches:]
    if inner and total == "1" and hosts is None:
        return
    del seen.launches[launches:], seen.programs[programs:]
    launch = Launch(
        base(words[0]),
        shown(words),
        total=total,
        is_remote=hosts is not None,
        is_alone=hosts is None,
        # Several programs, each with a number of its own.
        is_unclear=bool(inner) or ":" in words,
        splits=splits_in(program),
        sizes=sizes_in(program),
    )
    seen.launches.append(_with_environment(launch, variables))


def _is_known(word: str) -> bool:
    name = base(word)
    return name in LAUNCHERS or name in _MPI or name in _SHELLS or _PYTHON.fullmatch(name) is not None
