"""The generated real jobs for development, as a file of problems.

python tests/benchmarks/search.py autotuner ladder --set generated
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.generated import jobs


def problems() -> list[jobs.GeneratedProblem]:
    """Return the forty for development."""
    return jobs.problems(jobs.DEVELOPMENT)
