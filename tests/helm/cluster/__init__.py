"""The chart on a real API server; these tests need the programs of `tests.controlplane`."""
