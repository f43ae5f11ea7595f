"""Know what a script's `$(...)` prints if it counts the GPUs of the pod."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

GPUS: Final = "\0gpus\0"
"""Stands for the number of GPUs of the pod, in `$(nvidia-smi ... --format=csv,noheader | wc -l)`."""
LISTED: Final = "\0lines_of_nvidia_smi\0"
"""Stands for the lines of `nvidia-smi -L`: one for each GPU and, below it, one for each MIG slice."""

VISIBLE: Final = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ASCEND_RT_VISIBLE_DEVICES",
)
"""Variables that hide devices of a pod from PyTorch."""

_LISTED: Final = re.compile(r"\bnvidia-smi\s[^|]{0,200}(?:((?<!\S)-L\b|--list-gpus)|noheader)")
"""nvidia-smi with a line a GPU; the group says that MIG slices have lines, too."""
_DEVICE_FILES: Final = re.compile(
    r"\s*ls\s+(?:-\w{1,4}\s+)?/dev/nvidia(?:\[0-9\]\*?|\?)\s*(?:2>\s*/dev/null\s*)?"
)
"""The files of GPUs, without those of the driver, such as nvidiactl."""
_COUNT: Final = re.compile(r"\bnvidia-smi\s[^|]{0,100}--query-gpu=count\s[^|]{0,100}noheader[^|]{0,60}")
_ITEMS: Final = re.compile(
    r"\s*echo\s+[\"']?\$\{?(\w{1,80})\}?[\"']?\s*\|\s*"
    r"(?:tr\s+[\"']?,[\"']?\s+[\"'](?:\\n|\s)[\"']\s*\|\s*wc\s+-[lw]"
    r"|awk\s+-F\s*[\"']?,[\"']?\s+'\{\s?print NF;?\s?\}')\s*(?:\|\s*xargs\s*)?"
)
"""The number of items between commas in a variable, such as CUDA_VISIBLE_DEVICES."""
_FIRST: Final = re.compile(r"(?:head|tail)\s+(?:-n\s*)?-?1|uniq|sort\s+-u")
"""What leaves one of several equal lines."""
_LINES: Final = re.compile(r"e?grep\s+(-c\s+)?[\"']?(\^?GPU|\.)\s?[\"']?")
"""grep that keeps the lines of all GPUs."""
_SPACES: Final = re.compile(r"(?:cut|sed|tr)\s.{0,80}|xargs|awk\s+'\{\s?print \$(?:1|NF)\s?\}'", re.DOTALL)
"""Commands that take the spaces off a number."""
_DEVICES: Final = re.compile(r"print\((?:max\(1,\s?)?[\w.]{0,40}\bdevice_count\(\)(?:\s?or 1|,\s?1)?[,)]")
"""Python that prints how many devices PyTorch sees, and no part of them."""


def counted(inner: str, variables: Mapping[str, str | None]) -> str:
    """Return what stands for the number that a substitution prints, or the number; empty if it is unknown."""
    items = _ITEMS.fullmatch(inner)
    listed = None if items is None else variables.get(items[1])
    if listed and re.fullmatch(r"[\w:-]+(?:,[\w:-]+)*", listed):
        return str(listed.count(",") + 1)
    # The variables hide GPUs from PyTorch only.
    if _DEVICES.search(inner) is not None and not any(name in variables for name in VISIBLE):
        return GPUS
    return _pipeline(inner)


def _pipeline(pipeline: str) -> str:
    """Return what a pipeline stands for that counts the lines of nvidia-smi; empty if it may drop some."""
    first, *filters = pipeline.partition("||")[0].split("|")
    if _COUNT.search(first) is not None:
        rest = [each.strip() for each in filters if not _SPACES.fullmatch(each.strip())]
        return GPUS if rest and all(map(_FIRST.fullmatch, rest)) else ""
    has_header = re.search(r"\bnvidia-smi\s[^|]{0,200}--format=csv\s*$", first) is not None
    if has_header and filters and re.fullmatch(r"\s*tail\s+(?:-n\s*)?\+2\s*", filters[0]):
        # The lines behind the heading.
        first, filters = first + ",noheader", filters[1:]
    match = _LISTED.search(first)
    has_files = _DEVICE_FILES.fullmatch(first) is not None
    if match is None and not has_files:
        return ""
    has_slices, is_counted = has_files or (match is not None and match[1] is not None), False
    for each in filters:
        words = each.partition(";")[0].strip()
        lines = _LINES.fullmatch(words)
        if is_counted and _SPACES.fullmatch(words):
            continue
        if is_counted or not (lines or re.fullmatch(r"wc\s+-l", words)):
            return ""
        is_counted = lines is None or lines[1] is not None
        has_slices = has_slices and not (lines and lines[2].startswith("^"))
    return "" if not is_counted else LISTED if has_slices else GPUS
