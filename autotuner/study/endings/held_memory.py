"""Tell from PyTorch's error whether other processes hold the memory of a GPU.

A process that did not end, or a neighbour on a GPU that is shared by mistake, leaves a training no memory,
whatever its batch is. PyTorch says how much is free, how much it has allocated itself, and what it asked for.
Only a clear case counts: the training has and wants less than a tenth, and others hold more than half.
"""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE: Final = r"(\d{1,12}(?:\.\d{1,4})?) (bytes|[KMG]iB)"
_SAID: Final = re.compile(
    rf"Tried to allocate {_SIZE}\. GPU \d{{1,3}} has a total capacity of {_SIZE} of which {_SIZE} is free\."
    rf".{{0,1000}}Of the allocated memory {_SIZE} is allocated by PyTorch,.{{0,100}} {_SIZE} is reserved"
)
_SAID_BEFORE: Final = re.compile(
    rf"Tried to allocate {_SIZE} \(GPU \d{{1,3}}; {_SIZE} total capacity; {_SIZE} already allocated;"
    rf" {_SIZE} free; {_SIZE} (?:reserved|cached)"
)
"""The words of PyTorch before 2.1."""
_OWN: Final = re.compile(rf"this process has {_SIZE} memory in use")
"""What the driver says; in a container it may not know the process."""


def is_held_by_others(line: str) -> bool:
    """Return whether a line says that other processes hold the memory which the training lacks."""
    if said := _SAID.search(line):
        tried, capacity, free, allocated, reserved = _sizes(said)
    elif said := _SAID_BEFORE.search(line):
        tried, capacity, allocated, free, reserved = _sizes(said)
    else:
        return False
    own = allocated + reserved
    if (known := _OWN.search(line)) and _sizes(known)[0] < capacity:
        own = max(own, *_sizes(known))
    return 10 * (own + tried) < capacity < 2 * (capacity - free - own)


def _sizes(match: re.Match[str]) -> list[float]:
    """Return the sizes of a match in bytes."""
    groups = match.groups()
    return [float(number) * _UNITS[unit] for number, unit in zip(groups[::2], groups[1::2], strict=True)]
