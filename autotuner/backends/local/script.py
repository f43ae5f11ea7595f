"""Read the script that a job runs, if it is a file on this machine; used for warnings only."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from autotuner import keys
from autotuner.backends.local.pods import LOOPBACK, Surroundings, pods
from autotuner.errors import InvalidJob
from autotuner.job.job import Job
from autotuner.job.options import MAX_TEXT

_MAX_MODULES: Final = 16
_PATH_MAX: Final = 4096
_CONFIG_FILES: Final = (".yaml", ".yml", ".json", ".toml", ".ini", ".cfg")
_TEMPLATES: Final = (".tmpl", ".tpl", ".template", ".in", ".j2", ".env")
"""Files of which a command such as envsubst makes a configuration file."""
_IMPORT: Final = re.compile(r"^[ \t]{0,40}(?:from|import)[ \t]{1,8}(\w[\w.]{0,200})", re.MULTILINE)


def script_text(job: Job, surroundings: Surroundings) -> str | None:
    """Return the script of the first pod, modules in its folder that it imports, and its configuration files.

    None if no script is named that can be read here, or if it is longer than `MAX_TEXT`: only a complete
    script shows which variables it does not read.
    """
    try:
        plans = job.kind.pod_plans(job.manifest, LOOPBACK, 0)
        first = pods(plans, job.manifest["metadata"], surroundings)[0]
    except (InvalidJob, LookupError):
        return None
    file = next(_scripts(first.command, first.folder), None)
    text = None if file is None else _read(file)
    if file is None or text is None:
        return None
    modules = dict.fromkeys(match[1].replace(".", "/") for match in _IMPORT.finditer(text))
    for module in [name for name in modules if (file.parent / f"{name}.py").is_file()][:_MAX_MODULES]:
        imported = _read(file.parent / f"{module}.py")
        if imported is None or len(text) + len(imported) > MAX_TEXT:
            return None
        text += "\n" + imported
    # A configuration file may name the variables, for a script that expands them: `${oc.env:AUTOTUNER_...}`.
    for config in _configs(first.command, first.folder):
        named = _read(config)
        if named is None or len(text) + len(named) > MAX_TEXT:
            return None
        # Only these lines: other entries of a configuration do not show what the script reads.
        text += "".join(f"\n{line}" for line in named.splitlines() if keys.ENV_PREFIX in line)
    return text


def _scripts(command: Sequence[str], folder: Path) -> Iterator[Path]:
    words = [part for word in command for part in _split(word[:MAX_TEXT])]
    for before, word in zip(["", *words], words, strict=False):
        named = word.replace(".", "/") + ".py" if before == "-m" else word
        if named.endswith(".py") and len(named) < _PATH_MAX and (folder / named).is_file():
            yield folder / named


def _configs(command: Sequence[str], folder: Path) -> Iterator[Path]:
    """Yield the configuration files that the command names, as a word or as the value of an option."""
    for part in (part for word in command for part in _split(word[:MAX_TEXT])):
        named = part.rpartition("=")[2].lstrip("<")
        if (
            named.endswith(_CONFIG_FILES + _TEMPLATES)
            and len(named) < _PATH_MAX
            and (folder / named).is_file()
        ):
            yield folder / named


def _split(word: str) -> list[str]:
    try:
        return shlex.split(word, comments=True)
    except ValueError:
        return word.split()


def _read(file: Path) -> str | None:
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            text = opened.read(MAX_TEXT + 1)
    except OSError:
        return None
    return text if len(text) <= MAX_TEXT else None
