"""The local backend keeps the contract."""

import os
import sys
from dataclasses import replace

import pytest

from autotuner.backends.local.backend import LocalBackend
from autotuner.backends.local.pods import Surroundings
from autotuner.job.job import Job
from tests.contract.suite import BackendContract


class LocalHarness:
    def __init__(self, folder):
        self._folder = folder
        self._surroundings = Surroundings(folder=folder, shell=dict(os.environ), python=sys.executable)
        self.backend = self._open()

    def _open(self):
        return LocalBackend(self._folder / "contract-tuning", self._surroundings).__enter__()

    def register(self, manifest):
        job = replace(Job.from_manifest(manifest), uid="local")
        self.backend.save_job(job)
        return job

    def reread(self, job):
        return self.backend.job(job)

    def restart(self):
        self.close()
        self.backend = self._open()

    def close(self):
        self.backend.__exit__(None, None, None)


class TestLocal(BackendContract):
    @pytest.fixture
    def harness(self, tmp_path):
        harness = LocalHarness(tmp_path)
        yield harness
        harness.close()
