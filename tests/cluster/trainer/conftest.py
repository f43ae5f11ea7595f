import pytest

from tests.cluster.controllers import controllers
from tests.controlplane.fixtures import kueue, new_queue, trainer

__all__ = ["kueue", "new_controller", "new_queue", "trainer"]


@pytest.fixture
def new_controller(control_plane, user_with, namespace, tmp_path):
    """Return a function that makes a controller for one namespace with the ClusterRole of the chart.

    A Role cannot read ClusterTrainingRuntimes.
    """
    with controllers(control_plane, user_with, namespace, tmp_path, cluster_wide=True) as make:
        yield make
