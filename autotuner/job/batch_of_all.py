"""Warn if the batch of all processes and accumulation steps together is given to each of them.

A script that does so trains many times the batch of its trial.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from autotuner import keys
from autotuner.job.batch_options import NAMES, is_accumulation, is_of_process
from autotuner.job.options import REFERENCE, Option, in_code, plain
from autotuner.job.wiring_warning import SET_WITH, WiringWarning, replaced

_OF_STEPS: Final = frozenset({"global_batch_size", "total_batch_size", "train_batch_size", "gbs"})
"""Names of the batch size in scripts that divide it by the accumulation steps themselves."""
_WHOLE: Final = re.compile(
    rf"\$(?:\({keys.ENV_BATCH_SIZE}\)|{keys.ENV_BATCH_SIZE}|\{{{keys.ENV_BATCH_SIZE}(?::?[-=?][^{{}}]{{0,80}})?\}}"
    rf"|\(\(\s?\$?\{{?{keys.ENV_BATCH_SIZE}\}}?\s?\)\))"
)
"""The batch of all processes, as a shell or Kubernetes expands it."""
_OF_LOADER: Final = re.compile(
    r"[+-]{0,2}(?:\w{1,40}[./]){0,4}(?!\w{0,20}(?:val|test|eval|pred|infer))\w{0,20}data_?loader\w{0,20}[./]"
)
"""The name of an option with that of a loader in front: `train_dataloader.batch_size`."""
_LOADER: Final = re.compile(r"DataLoader\((?:[^()]|\((?:[^()]|\([^()]{0,80}\)){0,80}\)){0,600}\)")
_DIVIDED: Final = re.compile(r"(?:batch|bs\b|bsz)[\w.\[\]()\"', ]{0,60}/|/=|(?i:split_batches)")
"""A batch that a program divides, as far as one line of it shows."""


def given_to_each(
    codes: Sequence[tuple[str, str]], options: Sequence[Option], processes: int
) -> Iterator[WiringWarning]:
    """Yield the warnings about a container.

    Args:
        codes: The programs that can be read, each with its place.
        options: What the container passes on.
        processes: Processes of the job, which share a batch.
    """
    yield from _to_each_process(options, processes)
    yield from _to_loaders(options, processes)
    yield from _to_each_loader(codes, options, processes)
    yield from _to_each_step(options)


def _to_each_process(options: Sequence[Option], processes: int) -> Iterator[WiringWarning]:
    """Yield a warning for each option of one process's batch that is given that of all processes."""
    # Variables of the job or of its script that stand for it: `BS=$AUTOTUNER_BATCH_SIZE`.
    forms = {"env", "override", "code", "read"}
    whole = {option.name for option in options if option.form in forms and _is_whole(option)}
    for option in options:
        match = REFERENCE.fullmatch(option.value or "")
        used = match[1] or match[2] if match is not None else option.value if option.form == "name" else ""
        is_whole = _is_whole(option) or plain(used or "") in whole
        if processes > 1 and is_whole and is_of_process(option.name):
            rule = (
                f"is the batch of one process, and each of the {processes} would take the whole one: pass on"
                f" {keys.ENV_MICRO_BATCH_SIZE}, {SET_WITH}"
            )
            remedy = replaced(option, keys.ENV_MICRO_BATCH_SIZE)
            yield WiringWarning(option.where, option.written, rule, remedy, gives_whole=True)


def _to_loaders(options: Sequence[Option], processes: int) -> Iterator[WiringWarning]:
    """Yield a warning for each option of a training's loader that is given the batch of all processes."""
    for option in options if processes > 1 else ():
        is_of_loader = option.name == "batch_size" and _OF_LOADER.match(option.written) is not None
        if is_of_loader and _is_whole(option):
            rule = (
                f"is the batch of a loader, and each of the {processes} processes has one, which takes the"
                f" whole one unless the script divides it: pass on {keys.ENV_MICRO_BATCH_SIZE}, {SET_WITH}"
            )
            yield WiringWarning(
                option.where, option.written, rule, replaced(option, keys.ENV_MICRO_BATCH_SIZE)
            )


def _to_each_loader(
    codes: Sequence[tuple[str, str]], options: Sequence[Option], processes: int
) -> Iterator[WiringWarning]:
    """Yield a warning for each loader of a process's part of the samples that is given the batch of all."""
    given = {option.name for option in options if _is_whole(option)}
    for where, code in codes if processes > 1 else ():
        if "DistributedSampler(" not in code or _DIVIDED.search(code) is not None:
            continue
        found = list(in_code(where, code))
        whole = given | {option.name for option in found if _is_whole(option)}
        loaders = [call for call in _LOADER.findall(code) if "sampler" in call]
        for option in found:
            is_whole = _is_whole(option) or (option.form == "name" and plain(option.value or "") in whole)
            if option.name == "batch_size" and is_whole and any(option.written in call for call in loaders):
                rule = (
                    "is the batch of one process here, as each has a sampler, and each of the"
                    f" {processes} would take the whole one: divide it by the number of processes"
                )
                remedy = "batch_size // dist.get_world_size()"
                yield WiringWarning(where, option.written, rule, remedy, gives_whole=True)


def _to_each_step(options: Sequence[Option]) -> Iterator[WiringWarning]:
    """Yield a warning for each fixed number of accumulation steps, of which each is given the whole batch."""
    given = (o for o in options if _is_whole(o) and o.name in NAMES - _OF_STEPS)
    batch = next(given, None)
    if batch is None:
        return
    for option in options:
        is_fixed = re.fullmatch(r"[1-9]\d{0,4}", option.value or "") is not None and option.value != "1"
        if is_fixed and is_accumulation(option.name):
            rule = (
                f"{batch.written} is the batch of all accumulation steps together, so a script that gives it"
                f" to each of {option.value} steps trains {option.value} times as much: accumulate 1, or pass"
                f" on {keys.ENV_MICRO_BATCH_SIZE} and {keys.ENV_ACCUMULATION_STEPS}, {SET_WITH}"
            )
            remedy = option.written.replace(option.value or "", "1")
            yield WiringWarning(option.where, option.written, rule, remedy, name="batch_size")


def _is_whole(option: Option) -> bool:
    """Return whether the value of an option is the batch of all processes."""
    return _WHOLE.fullmatch(option.value or "") is not None
