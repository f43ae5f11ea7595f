"""The local backend: trials are processes of this machine, and the ledger is a folder of files."""

from autotuner.backends.local.backend import LocalBackend
from autotuner.backends.local.study_folder import read_study

__all__ = ["LocalBackend", "read_study"]
