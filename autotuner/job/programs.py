"""A program that a container runs, and that is no known launcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from autotuner.job.program_options import COUNTS, STARTED, numbers_in, sizes_in, splits_in
from autotuner.job.shell import Branches, is_exported
from autotuner.job.shell_words import Variables
from autotuner.job.wrappers import names

GROUPS: Final = names(
    "autotrain axolotl litgpt llamafactory llamafactory-cli lmf megatron swift trl xtuner yolo"
)
"""Programs that start a process group of their own, and take its nodes from NNODES or from options."""


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


def entrypoint(words: Sequence[str], *, has_recipe: bool = False) -> Program:
    """Return the program of an image, with the words that a container gives it.

    `has_recipe` says that these are a recipe of torchtune.
    """
    numbers = numbers_in(words, COUNTS | STARTED)
    splits, sizes = splits_in(words), sizes_in(words, has_recipe=has_recipe)
    return Program("the image's entrypoint", True, numbers=numbers, splits=splits, sizes=sizes)


def passed(variables: Variables, name: str) -> str | None:
    """Return the value of a variable as a program sees it; None if it has none, or an unknown one."""
    return variables.get(name) if is_exported(variables, name) else None
