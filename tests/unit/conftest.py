"""Fixtures that several test files of this folder use."""

import pytest

from tests.unit.running_trial import Cluster


@pytest.fixture
def cluster():
    cluster = Cluster()
    yield cluster
    cluster.server.close()
