"""What `validate` says is what the real API server and the operator's webhook say."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from kubernetes import client

from autotuner.cli.render import rendered
from autotuner.job.job import Job
from autotuner.job.validation import validate
from tests.cases.test_jobs import WITHOUT_MISTAKES, case
from tests.controlplane.jobs import API, PLURAL
from tests.wrong_jobs import REFUSED


def create(cluster: Any, made: dict[str, Any]) -> None:
    """Create a job as kubectl does, with a strict check of its fields, and store nothing."""
    document = yaml.safe_load(yaml.safe_dump(made))
    document["metadata"]["namespace"] = cluster.namespace
    client.CustomObjectsApi(cluster.admin).create_namespaced_custom_object(
        *API, cluster.namespace, PLURAL, document, dry_run="All", field_validation="Strict"
    )


@pytest.mark.parametrize("name", WITHOUT_MISTAKES)
def test_a_job_and_its_trial_are_accepted(cluster, name):
    made, expected = case(name)
    create(cluster, made)
    create(cluster, rendered(Job.from_manifest(made), expected["render"]["batch-size"], {}))


@pytest.mark.parametrize(("made", "says"), REFUSED)
def test_what_is_a_mistake_is_refused(cluster, made, says):
    assert validate(made).mistakes
    with pytest.raises(client.ApiException) as refusal:
        create(cluster, made)
    assert refusal.value.status in {400, 403, 422}
