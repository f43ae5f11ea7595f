"""Read the command line and the environment of a container as Kubernetes passes them on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from autotuner import keys
from autotuner.job.lookup import mapping, sequence

_REFERENCE: Final = re.compile(r"\$\$|\$\(([^()\s$]+)\)")
_MOST: Final = 1 << 18
"""Maximum characters of the values in one text."""


def environment(container: Mapping[str, Any], *, is_trial: bool) -> dict[str, str | None]:
    """Return the container's own variables; None for those with `valueFrom`."""
    found: dict[str, str | None] = {}
    for entry in map(mapping, sequence(container.get("env"))):
        name, value = entry.get("name"), entry.get("value")
        if isinstance(name, str):
            # A trial has other values of its variables than the job.
            is_unknown = entry.get("valueFrom") or (name.startswith(keys.ENV_PREFIX) and not is_trial)
            found[name] = None if is_unknown else expanded(str(value or ""), found)
    return found


def expanded(text: str, variables: Mapping[str, str | None]) -> str:
    """Return a text with `$(NAME)` replaced as in Kubernetes; unknown names stay."""
    left = _MOST

    def replacement(match: re.Match[str]) -> str:
        nonlocal left
        value = "$" if match[0] == "$$" else variables.get(match[1])
        if value is None or len(value) > left:
            return match[0]
        left -= len(value)
        return value

    return _REFERENCE.sub(replacement, text)


def words_in(container: Mapping[str, Any], key: str) -> list[str]:
    """Return the words of `command` or `args`."""
    return [word for word in sequence(container.get(key)) if isinstance(word, str)]


def words_of(container: Mapping[str, Any]) -> list[str]:
    """Return the command line of a container."""
    return [*words_in(container, "command"), *words_in(container, "args")]
