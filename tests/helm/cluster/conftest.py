from pathlib import Path

import pytest
import yaml
from kubernetes import client

from tests.controlplane.fixtures import admin, control_plane, namespace, nodes, user_with
from tests.controlplane.waiting import eventually

__all__ = ["admin", "control_plane", "monitoring_kinds", "namespace", "nodes", "user_with"]


@pytest.fixture(scope="session")
def monitoring_kinds(admin: client.ApiClient) -> None:
    """The Prometheus operator's resources, with the fields of theirs that the chart may use.

    They stay until the control plane ends: a resource that goes away takes a while to be forgotten.
    """
    api = client.ApiextensionsV1Api(admin)
    text = Path(__file__).with_name("monitoring_kinds.yaml").read_text()
    names = []
    for kind in yaml.safe_load_all(text):
        names.append(kind["metadata"]["name"])
        api.create_custom_resource_definition(kind)
    for name in names:
        eventually(
            lambda name=name: any(
                condition.type == "Established" and condition.status == "True"
                for condition in api.read_custom_resource_definition(name).status.conditions or ()
            )
        )
