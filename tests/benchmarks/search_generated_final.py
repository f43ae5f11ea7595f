"""The generated real jobs for one check at the end of a change, as a file of problems.

    python tests/benchmarks/search.py autotuner ladder --set generated-final

A job that the search was changed for is no check of it: run this once, and change nothing for what it shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.generated import jobs


def problems() -> list[jobs.GeneratedProblem]:
    """Return the forty for the final check."""
    return jobs.problems(jobs.FINAL)
