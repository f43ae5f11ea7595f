"""Count the accelerators that a container asks for, by the names of any vendor's device plug-in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_WHOLE: Final = re.compile(
    r"nvidia\.com/gpu(?:\.shared)?|nvidia\.com/[A-Z][\w.-]*|amd\.com/gpu|gpu\.intel\.com/(?:i915|xe)"
    r"|habana\.ai/gaudi|[a-z0-9.-]+/(?:gpu|vgpu|mlu|dcu|npu)|huawei\.com/[Aa]scend\w*|metax-tech\.com/gpu"
)
"""Devices of which PyTorch counts each as one."""
_SLICE: Final = re.compile(r"nvidia\.com/mig-\S+|amd\.com/(?:cpx|dpx|spx)\S*")
"""MIG slices of a GPU (https://docs.nvidia.com/datacenter/tesla/mig-user-guide): a process sees only one."""
_OTHER: Final = re.compile(r"aws\.amazon\.com/neuron\w*|google\.com/tpu|[\w.-]+/\S*gpu\S*")
"""Devices that PyTorch's launcher does not count, or counts differently from the request."""


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
            if re.fullmatch(r"[0-9]{1,6}", str(amount)) and int(str(amount)) > 0:
                amounts[name] = int(str(amount))
    counted = {"whole": 0, "slices": 0, "other": 0}
    named: list[str] = []
    for name, amount in amounts.items():
        for field, pattern in (("slices", _SLICE), ("whole", _WHOLE), ("other", _OTHER)):
            if pattern.fullmatch(name):
                counted[field] += amount
                named.append(f"{name}: {amount}")
                break
    if resources.get("claims"):
        # Dynamic resource allocation: the number of devices of a claim is defined in another object.
        counted["other"] += 1
        named.append("resources.claims")
    return Accelerators(**counted, named=", ".join(named))
