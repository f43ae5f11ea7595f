"""What holds for all tests: property-based ones try the same inputs on every machine, however slow it is."""

from __future__ import annotations

import os

import hypothesis

# Several processes test at once, and the BLAS threads would wait for each other. Read when NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis.settings.register_profile(
    "autotuner",
    # No wall clock in tests: a busy machine is no failure.
    deadline=None,
    # The same examples in every run, so that failures are reproducible.
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("autotuner")
