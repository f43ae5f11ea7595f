"""What the controller may do: where, under which account, and no more."""

import pytest

from tests.helm.chart import FULLNAME, NAMESPACE, daemon_file, find, one, pod_spec, render

CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding"}
PYTORCHJOBS = [("pytorchjobs", verb) for verb in ("get", "list", "watch", "create", "patch", "delete")]
TRAINJOBS = [("trainjobs", verb) for verb in ("get", "list", "watch", "create", "patch", "delete")]
RUNTIMES = [("trainingruntimes", "get"), ("clustertrainingruntimes", "get")]
PODS = [
    ("pods", "list"),
    ("pods/log", "get"),
    ("configmaps", "get"),
    ("configmaps", "create"),
    ("configmaps", "patch"),
    ("events", "create"),
    ("events", "patch"),
]
JOBS_AND_PODS = [*PYTORCHJOBS, *PODS]
REASONS = [("events", "list"), ("workloads", "list")]
"""A tuning does without them: then it says less about what holds trials up."""
LEASES = [("leases", "get"), ("leases", "create"), ("leases", "update")]


def test_namespaced_mode_has_rights_in_these_namespaces_and_nowhere_else():
    documents = render(namespaces=["team-a", "team-b"])
    assert not CLUSTER_SCOPED & {d["kind"] for d in documents}
    roles, bindings = find(documents, "Role"), find(documents, "RoleBinding")
    assert [d["metadata"]["namespace"] for d in roles] == ["team-a", "team-b"]
    assert [d["metadata"]["namespace"] for d in bindings] == ["team-a", "team-b"]
    for role, binding in zip(roles, bindings, strict=True):
        assert rights_of([role]) == rights_of([one(render(), "ClusterRole")]) - {RUNTIMES[1]}
        assert binding["roleRef"] == {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": FULLNAME,
        }
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": FULLNAME, "namespace": NAMESPACE}]
    assert "namespaces:\n- team-a\n- team-b" in daemon_file(documents)


def test_daemon_is_given_no_secrets_and_no_wildcards():
    roles = [d for d in render() if d["kind"] in {"Role", "ClusterRole"}]
    for rule in [rule for role in roles for rule in role["rules"]]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "secrets" not in rule["resources"]


def test_lease_may_be_read_and_written_under_its_own_name_only():
    documents = render()
    create, use = one(documents, "Role", f"{FULLNAME}-leader-election")["rules"]
    assert create["verbs"] == ["create"]
    assert use["resourceNames"] == [FULLNAME]
    assert f"lease_name: {FULLNAME}" in daemon_file(documents)
    assert f"lease_namespace: {NAMESPACE}" in daemon_file(documents)


@pytest.mark.parametrize(
    "account", [{}, {"name": "mine"}, {"create": False, "name": "theirs"}, {"create": False}]
)
def test_rights_go_to_the_account_that_the_pod_runs_as(account):
    documents = render(serviceAccount=account)
    name = pod_spec(documents)["serviceAccountName"]
    expected = account.get("name") or (FULLNAME if account.get("create", True) else "default")
    assert name == expected
    for binding in [d for d in documents if d["kind"].endswith("RoleBinding")]:
        assert [subject["name"] for subject in binding["subjects"]] == [name]


def test_only_the_daemon_gets_a_token():
    documents = render()
    assert one(documents, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod_spec(documents)["automountServiceAccountToken"] is True
    assert one(documents, "Pod", f"{FULLNAME}-test")["spec"]["automountServiceAccountToken"] is False


def rights_of(documents):
    """Return every pair of resource and verb that some role gives."""
    return {
        (resource, verb)
        for document in documents
        if document["kind"] in {"Role", "ClusterRole"}
        for rule in document["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_rights_are_these_and_no_others():
    own = {*JOBS_AND_PODS, *TRAINJOBS, *REASONS, *LEASES}
    assert rights_of(render()) == {*own, *RUNTIMES}
    # A Role cannot name what belongs to no namespace.
    assert rights_of(render(namespaces=["a"])) == {*own, RUNTIMES[0]}


@pytest.mark.parametrize(
    ("kinds", "rights"),
    [(["PyTorchJob"], PYTORCHJOBS), (["TrainJob"], [*TRAINJOBS, *RUNTIMES])],
)
def test_a_kind_that_is_not_tuned_comes_with_no_rights(kinds, rights):
    documents = render(kinds=kinds)
    assert rights_of(documents) == {*PODS, *REASONS, *LEASES, *rights}
    assert f"kinds:\n- {kinds[0]}\n" in daemon_file(documents)


def test_a_namespaced_controller_may_read_cluster_runtimes_if_it_is_told_to_and_nothing_else():
    documents = render(namespaces=["a"], rbac={"clusterTrainingRuntimes": True})
    assert one(documents, "ClusterRole", f"{FULLNAME}-{NAMESPACE}-runtimes")["rules"] == [
        {
            "apiGroups": ["trainer.kubeflow.org"],
            "resources": ["clustertrainingruntimes"],
            "verbs": ["get"],
        }
    ]
    only = render(namespaces=["a"], kinds=["PyTorchJob"], rbac={"clusterTrainingRuntimes": True})
    assert not CLUSTER_SCOPED & {d["kind"] for d in only}


def test_workloads_of_kueue_are_not_read_if_it_is_told_not_to():
    documents = render(rbac={"kueueWorkloads": False})
    assert rights_of(render()) - rights_of(documents) == {("workloads", "list")}


def test_extra_rules_are_added_to_them():
    extra = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
    assert rights_of(render(rbac={"extraRules": [extra]})) - rights_of(render()) == {("nodes", "get")}
