"""Recognise what a container's command line runs: launchers, and programs that are none.

`read_command_line` follows shells, scripts in strings and here-documents, and returns each launcher that runs
and each other program. `autotuner.job.pod_processes` counts their processes.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from autotuner.job.batch_options import is_size
from autotuner.job.gpu_counts import VISIBLE
from autotuner.job.here_documents import without_documents
from autotuner.job.launchers import LAUNCHERS, Launch, shown
from autotuner.job.program_options import COUNTS, STARTED, numbers_in, sizes_in, splits_in
from autotuner.job.programs import GROUPS, Program, passed
from autotuner.job.python_programs import MODULES, PYTHON, read_python
from autotuner.job.shell import Command, commands, exported, is_exported
from autotuner.job.shell_words import MAX_VALUE, ScriptTooLong, Variables
from autotuner.job.wrappers import base, is_step, names, unwrapped

_MAX_NESTED: Final = 4
"""Maximum depth of nested shells."""
_NAMED: Final = names(
    """
    accelerate deepspeed horovodrun mpiexec mpirun torch.distributed.launch torch.distributed.run torchrun
    """
)
"""Launchers whose names mean nothing else."""
_STARTERS: Final = names("flux jsrun parallel ray srun torchx xargs")
"""Commands that start any number of processes, by options that are not read here."""
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
        words = ("python", *words[1:]) if "".join(words[2:3]) in MODULES else words
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
    if PYTHON.fullmatch(base(words[0])):
        found = read_python(words, command, seen.files, is_another=seen.is_in_background)
        if isinstance(found, Program):
            seen.is_in_background = seen.is_in_background or command.is_background
            seen.programs.append(found)
            return
        words = found
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
        per_node=passed(variables, "NPROC_PER_NODE"),
        nodes=passed(variables, "NNODES"),
        is_group=name in GROUPS,
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
    return name in LAUNCHERS or name in _MPI or name in _SHELLS or PYTHON.fullmatch(name) is not None
