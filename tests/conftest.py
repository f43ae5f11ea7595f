"""What holds for all tests: property-based ones try the same inputs on every machine, however slow it is."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile(
    "autotuner",
    # No wall clock in tests: a busy machine is no failure.
    deadline=None,
    # The same examples every time, so that a failure is one for everybody.
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("autotuner")
