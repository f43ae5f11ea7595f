"""Variables and arguments of a container, as Kubernetes makes them."""

from dataclasses import replace

import pytest

from tests.controlplane.environment import ConfigurationError, command_line, environment, expand
from tests.controlplane.pod import Pod

POD = Pod.from_manifest(
    {
        "metadata": {
            "namespace": "team",
            "name": "job-worker-0",
            "uid": "1234",
            "labels": {"training.kubeflow.org/job-name": "job", "app": "vision"},
            "annotations": {"note": "large batches"},
            "ownerReferences": [{"uid": "5678"}],
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "pytorch"}]},
    }
)
OBJECTS = {
    ("ConfigMap", "team", "settings"): {"data": {"steps": "100", "lr": "0.1"}},
    ("Secret", "team", "login"): {"data": {"token": "c2VjcmV0"}},
}


def variables(*entries, sources=(), port=None):
    container = replace(POD.containers[0], environment=entries, environment_sources=sources)
    return environment(container, POD, lambda *key: OBJECTS.get(key), port)


def field(path):
    return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}


def key_of(kind, name, key, **more):
    return {"name": "X", "valueFrom": {f"{kind}KeyRef": {"name": name, "key": key, **more}}}


# Cases of Kubernetes' own third_party/forked/golang/expansion/expand_test.go.
@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(VAR_A)", "A"),
        ("___$(VAR_B)___", "___B___"),
        ("$(VAR_A)$(VAR_B)", "AB"),
        ("$(VAR_DNE)", "$(VAR_DNE)"),
        ("$(VAR_EMPTY)", ""),
        ("f000-$$VAR_A", "f000-$VAR_A"),
        ("$$(VAR_A)", "$(VAR_A)"),
        ("$$$(VAR_A)", "$A"),
        ("$$$$(VAR_A)", "$$(VAR_A)"),
        ("$VAR_A", "$VAR_A"),
        ("${VAR_A}", "${VAR_A}"),
        ("foo$", "foo$"),
        ("foo$$", "foo$"),
        ("$(", "$("),
        ("$(VAR_A", "$(VAR_A"),
        ("$$(VAR_A", "$(VAR_A"),
        ("$()", "$()"),
        ("$(VAR_A))", "A)"),
        ("$(VAR_A$(VAR_B))", "$(VAR_A$(VAR_B))"),
        ("$(VAR_REF)", "$(VAR_A)"),
        ("\n$(VAR_A)\n", "\nA\n"),
    ],
)
def test_references_expand_as_in_kubernetes(text, expanded):
    values = {"VAR_A": "A", "VAR_B": "B", "VAR_EMPTY": "", "VAR_REF": "$(VAR_A)"}
    assert expand(text, values) == expanded


def test_variables_refer_to_earlier_ones_only():
    found = variables(
        {"name": "LATE", "value": "$(EARLY)"},
        {"name": "EARLY", "value": "1"},
        {"name": "AFTER", "value": "$(EARLY)2"},
        {"name": "EMPTY"},
    )
    assert found == {"LATE": "$(EARLY)", "EARLY": "1", "AFTER": "12", "EMPTY": ""}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "job-worker-0"),
        ("metadata.namespace", "team"),
        ("metadata.uid", "1234"),
        ("metadata.labels['app']", "vision"),
        ("metadata.labels['absent']", ""),
        ("metadata.annotations['note']", "large batches"),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "127.0.0.1"),
    ],
)
def test_fields_of_the_pod_resolve(path, value):
    assert variables(field(path)) == {"X": value}


def test_keys_of_config_maps_and_secrets_resolve():
    assert variables(key_of("configMap", "settings", "steps")) == {"X": "100"}
    assert variables(key_of("secret", "login", "token")) == {"X": "secret"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (key_of("configMap", "absent", "steps"), 'configmap "absent" not found'),
        (
            key_of("configMap", "settings", "absent"),
            "couldn't find key absent in ConfigMap team/settings",
        ),
        (key_of("secret", "absent", "token"), 'secret "absent" not found'),
    ],
)
def test_a_missing_key_is_a_configuration_error(entry, message):
    with pytest.raises(ConfigurationError, match=message):
        variables(entry)


def test_a_missing_optional_key_leaves_the_variable_out():
    assert variables(key_of("configMap", "absent", "steps", optional=True)) == {}


def test_whole_config_maps_come_before_single_variables():
    sources = ({"configMapRef": {"name": "settings"}, "prefix": "S_"},)
    found = variables({"name": "S_lr", "value": "$(S_lr)5"}, sources=sources)
    assert found == {"S_steps": "100", "S_lr": "0.15"}


@pytest.mark.parametrize(
    ("name", "value", "resolved"),
    [
        ("MASTER_ADDR", "job-master-0", "127.0.0.1"),
        ("MASTER_PORT", "23456", "20001"),
        ("PET_MASTER_ADDR", "job-master-0.team.svc.cluster.local", "127.0.0.1"),
        ("PET_RDZV_ENDPOINT", "job-worker-0:23456", "127.0.0.1:20001"),
        ("OTHER_JOB", "job-two-master-0", "job-two-master-0"),
        ("OUTPUT", "/data/job-master-0", "/data/job-master-0"),
        ("RANK", "1", "1"),
    ],
)
def test_names_of_the_jobs_pods_lead_to_loopback(name, value, resolved):
    assert variables({"name": name, "value": value}, port=20001) == {name: resolved}


def test_a_pods_own_name_stays_a_name():
    assert variables(field("metadata.name"), port=20001) == {"X": "job-worker-0"}


def test_arguments_lead_to_loopback_too():
    words = ("--rdzv-endpoint=job-worker-0:29400", "$(MASTER_ADDR)", "$(ABSENT)")
    found = command_line(words, {"MASTER_ADDR": "127.0.0.1"}, POD, 20001)
    assert found == ("--rdzv-endpoint=127.0.0.1:20001", "127.0.0.1", "$(ABSENT)")


JOBSET_POD = Pod.from_manifest(
    {
        "metadata": {
            "namespace": "team",
            "name": "job-node-0-1-x7k2p",
            "uid": "1234",
            "labels": {
                "jobset.sigs.k8s.io/jobset-name": "job",
                "jobset.sigs.k8s.io/jobset-uid": "5678",
                "jobset.sigs.k8s.io/restart-attempt": "2",
            },
            "ownerReferences": [{"uid": "9"}],
        },
        "spec": {"hostname": "job-node-0-1", "containers": [{"name": "node"}]},
    }
)


@pytest.mark.parametrize(
    ("value", "on_loopback"),
    [
        ("job-node-0-0.job", "127.0.0.1"),
        ("job-node-0-0.job:29500", "127.0.0.1:4321"),
        ("--rdzv-endpoint=job-node-0-0.job.team.svc:29500", "--rdzv-endpoint=127.0.0.1:4321"),
        ("job-node-0-0", "job-node-0-0"),
        ("job-node-0-0.other", "job-node-0-0.other"),
        ("https://trainer.kubeflow-system.svc:10443/status", "https://127.0.0.1:10443/status"),
        ("https://trainer.kubeflow-system.svc.cluster.local/status", "https://127.0.0.1/status"),
        ("https://example.com/a.b.svc", "https://example.com/a.b.svc"),
    ],
)
def test_names_of_a_job_sets_pods_and_urls_of_services_lead_to_loopback(value, on_loopback):
    assert command_line([value], {}, JOBSET_POD, 4321) == (on_loopback,)


def test_a_job_sets_pods_train_together_within_one_attempt():
    assert JOBSET_POD.group == "5678/2"
    assert POD.group == "5678"
    assert JOBSET_POD.host_name == "job-node-0-1"
