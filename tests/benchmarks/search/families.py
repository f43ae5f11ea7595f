"""The families of problems, by name. Results of different families are never averaged."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.benchmarks.search import choices, problems
from tests.benchmarks.search.problems import Problem


def _real() -> list[Problem]:
    from tests.benchmarks import search_real  # noqa: PLC0415 (scikit-learn, and seconds to import)

    return [*search_real.problems()]


def _further() -> list[Problem]:
    from tests.benchmarks import search_problems  # noqa: PLC0415 (imports this package)

    return [*search_problems.problems()]


def _generated(which: str) -> Callable[[], list[Problem]]:
    def load() -> list[Problem]:
        from tests.benchmarks.generated import jobs  # noqa: PLC0415 (scikit-learn, and seconds to import)

        return [*jobs.problems(which)]

    return load


FAMILIES: Mapping[str, Callable[[], list[Problem]]] = {
    "language-models": problems.language_models,
    "tabular": problems.tabular,
    "tabular-further": _further,
    "real": _real,
    "choices": choices.problems,
    "generated": _generated("development"),
    # For one check at the end of a change to the search: what has been looked at is no check any more.
    "generated-final": _generated("final"),
}


def load(family: str) -> list[Problem]:
    """Return the problems of a family, or of a Python file's function `problems`."""
    if family in FAMILIES:
        return FAMILIES[family]()
    name = f"given_{Path(family).stem}"
    spec = importlib.util.spec_from_file_location(name, family)
    if spec is None or spec.loader is None:
        raise SystemExit(f"--set is {family}: must be a family or a Python file, for example tabular")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    found: list[Problem] = module.problems()
    return found
