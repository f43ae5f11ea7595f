"""Recognise what a Python runs: a launcher, a program that starts others, or the training itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from autotuner.job.launchers import LAUNCHERS, shown
from autotuner.job.program_options import (
    COUNTS,
    NODES,
    OF_SCRIPTS,
    is_strategy,
    numbers_in,
    pairs_in,
    sizes_in,
    splits_in,
)
from autotuner.job.programs import GROUPS, Program, passed
from autotuner.job.shell import Command
from autotuner.job.wrappers import base, names

PYTHON: Final = re.compile(r"(?:python|pypy)[\d.]*")
MODULES: Final = {
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
_NO_TRAINING: Final = names(
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


def read_python(
    words: Sequence[str], command: Command, files: Mapping[str, str], *, is_another: bool
) -> Sequence[str] | Program:
    """Return the words of the launcher that Python runs (`python -m ...`), or the program that it runs.

    No words if it runs neither.

    Args:
        words: The command without what wraps it.
        command: The command, with the variables that it sees.
        files: What the script has written, by name.
        is_another: Whether another Python program runs in the background.
    """
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
    if is_module and target in MODULES:
        return (MODULES[target], *words[at + 1 :])
    if is_module and target.startswith("accelerate.commands.accelerate"):
        return ("accelerate", *words[at + 1 :])
    if switch is None and base(target) in LAUNCHERS:
        return words[at:]
    if is_module and target in _NO_TRAINING:
        return ()
    is_code = switch is not None and not is_module
    stem = base(target).removesuffix(".py")
    starts = not is_code and _STARTING.fullmatch(f"{stem}." if is_module else stem) is not None
    # The code of a program that the manifest itself contains.
    code = target if is_code else command.document if target in {"", "-"} else files.get(base(target))
    starts = starts if code is None else _SPAWNING.search(code) is not None
    numbers = {} if is_code else numbers_in(words[at:], COUNTS | OF_SCRIPTS)
    if not is_code and not numbers.keys() - NODES:
        numbers |= {name: text for name, text in pairs_in(words[at:]) if is_strategy(name, text)}
    # Options of Python in front of its script, such as `-m torch.distributed.launch`.
    is_hidden = target.startswith("$") and any(word.endswith(".py") for word in words[at + 1 :])
    # A profiler, or a debugger, that runs a launcher.
    runs_one = any(word == "-m" and after in MODULES for word, after in pairwise(words[at:]))
    starts = starts or command.is_repeated or is_hidden or runs_one
    return Program(
        shown(words),
        is_opaque=starts or command.is_background,
        is_script=starts or (is_another and command.is_background),
        names_launcher=starts,
        numbers=numbers,
        splits={} if is_code else splits_in(words[at:]),
        sizes={} if is_code else sizes_in(words[at:]),
        world_size=passed(command.variables, "WORLD_SIZE"),
        trains=not is_code,
        nodes=passed(command.variables, "NNODES"),
        is_group=is_module and target.partition(".")[0] in GROUPS,
    )
