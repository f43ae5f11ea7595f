"""`python -m autotuner`."""

from autotuner.cli import app

app()
