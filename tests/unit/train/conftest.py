import pytest

from tests.unit.train.two_processes import TwoProcesses


@pytest.fixture(scope="session")
def two_processes():
    pair = TwoProcesses()
    yield pair
    pair.stop()
