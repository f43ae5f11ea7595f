#!/usr/bin/env python3
"""Compare tuning policies on problems with a known answer, by family.

    python tests/benchmarks/search.py autotuner ladder tpe --set language-models --seeds 2
    python tests/benchmarks/search.py autotuner ladder --set real generated --seeds 2
    python tests/benchmarks/search.py autotuner --set tabular --seeds 2 --calibration

`autotuner` is this project's search, `ladder` is what a careful engineer does by hand, the others are Optuna
alone: known-good baseline first, the target as a constraint, stop on success, with or without a pruner. An
answer is right when it is, noise aside, feasible and within half a doubling of the largest feasible batch
size; it is false when it misses the target by more than the mean of three runs can tell.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.search.command import main

if __name__ == "__main__":
    main(__doc__)
