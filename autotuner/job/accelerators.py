"""Count the accelerators that a container asks for, by the names of any vendor's device plug-in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from autotuner.job.quantity import whole

_WHOLE: Final = re.compile(
    r"nvidia\.com/gpu(?:\.shared)?|nvidia\.com/[A-Z][\w.-]*|amd\.com/gpu|gpu\.intel\.com/(?:i915|xe)"
    # A model instead of `gpu`, as NVIDIA's device plug-in can be configured: nvidia.com/a100.
    r"|nvidia\.com/(?:[abghlptv]|gb|gh|gtx-?|quadro-?|rtx-?a?|tesla-?[a-z]?|titan-?)[0-9][\w.-]*"
    r"|habana\.ai/gaudi|[a-z0-9.-]+/(?:gpu|vgpu|mlu|dcu|npu)|huawei\.com/[Aa]scend(?:\w*|-\d+)|metax-tech\.com/gpu"
)
"""Devices of which PyTorch counts each as one."""
_SLICE: Final = re.compile(r"nvidia\.com/mig-\S+|amd\.com/(?:cpx|dpx|spx)\S*")
"""MIG slices of a GPU (https://docs.nvidia.com/datacenter/tesla/mig-user-guide): a process sees only one."""
# Three letters may be a part of a word, as in `input` and `output`; `v` stands for a virtual device.
_UNIT: Final = r"(?:gpu|(?<![a-uw-z])(?:dcu|gcu|hpu|ipu|mlu|npu|ppu|tpu|xpu))"
_OTHER: Final = re.compile(rf"[\w.-]+/\S*(?:{_UNIT}|ascend|gaudi|neuron|qaic|rngd|warboy)\S*", re.IGNORECASE)
"""Devices that PyTorch's launcher does not count, or counts differently from the request."""
_SHARE: Final = re.compile(
    rf"koordinator\.sh/gpu\S*|[\w.-]+/\S*(?:{_UNIT}|vcuda|ascend)\S*"
    r"(?:mem|core|percent|ratio|util|monitor|priority)\S*",
    re.IGNORECASE,
)
"""What bounds a container's part of a device (HAMi, Volcano, Koordinator, ACK): MiB or percent."""
_MOST: Final = 100_000
"""Maximum amount of a device; a larger one cannot be a count of devices."""


@dataclass(frozen=True, slots=True)
class Accelerators:
    """What a container asks for.

    Args:
        whole: Devices of which PyTorch counts each as one.
        slices: Parts of a GPU.
        other: Devices that PyTorch's `auto` does not count.
        named: Name and amount of each, for people.
    """

    whole: int = 0
    slices: int = 0
    other: int = 0
    named: str = ""

    @property
    def devices(self) -> int:
        """Number of accelerators to pay for."""
        return self.whole + self.slices + self.other

    @property
    def auto(self) -> int | None:
        """Number of devices that PyTorch counts, as for `nproc_per_node: auto`; None if unknown."""
        if self.other or (self.slices and self.whole) or self.slices > 1:
            return None
        return self.whole or self.slices or None


def accelerators(container: Mapping[str, Any]) -> Accelerators:
    """Return the accelerators of a container's limits, and of its requests if it has no limit."""
    resources = container.get("resources")
    resources = resources if isinstance(resources, dict) else {}
    amounts: dict[str, int] = {}
    for kind in ("requests", "limits"):
        given = resources.get(kind)
        for name, amount in (given if isinstance(given, dict) else {}).items():
            number = _number(amount)
            if 0 < number <= _MOST or (number and is_share(name)):
                amounts[name] = number
    counted = {"whole": 0, "slices": 0, "other": 0}
    named: list[str] = []
    shares = [name for name in amounts if is_share(name)]
    for name, amount in amounts.items():
        if name in shares:
            continue
        for field, pattern in (("slices", _SLICE), ("whole", _WHOLE), ("other", _OTHER)):
            if pattern.fullmatch(name):
                counted[field] += amount
                named.append(f"{name}: {amount}")
                break
    if shares and not any(counted.values()):
        # A part of one GPU.
        counted["other"] += 1
        named += [f"{name}: {amounts[name]}" for name in shares]
    if resources.get("claims"):
        # Dynamic resource allocation: the number of devices of a claim is defined in another object.
        counted["other"] += 1
        named.append("resources.claims")
    return Accelerators(**counted, named=", ".join(named))


def is_share(name: str) -> bool:
    """Return whether a resource bounds a part of a GPU: its amount does not count devices."""
    return _SHARE.fullmatch(name) is not None


def _number(amount: object) -> int:
    """Return an amount as a whole number; 0 if it is no quantity, or is negative."""
    try:
        return whole(amount)
    except ValueError:
        return 0
