"""Finds the largest batch size that still meets a target accuracy.

`autotuner.spec` says what a user asks for, `autotuner.decide` what to do next, and
`autotuner.reconcile` does it, on a laptop or on a Kubernetes cluster.
"""

__version__ = "0.1.0"
