"""Users have exactly the rights that their RBAC objects give."""

import pytest
import yaml
from kubernetes import client, config

from tests.controlplane import rbac

# As a chart renders them: a deployment beside, no namespace on what belongs into the release's.
RENDERED = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: tuner}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: tuner}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: tuner}
rules:
  - {apiGroups: [""], resources: [pods], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: tuner}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tuner}
subjects:
  - {kind: ServiceAccount, name: tuner}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tuner-lease}
rules:
  - {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tuner-lease}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tuner-lease}
subjects:
  - {kind: ServiceAccount, name: tuner}
"""


def is_forbidden(call, *arguments):
    try:
        call(*arguments)
    except client.ApiException as error:
        return error.status == 403
    return False


def test_a_user_of_rendered_rules_may_do_just_what_they_say(user_with, namespace):
    api = client.ApiClient(user_with(list(yaml.safe_load_all(RENDERED))))
    core, leases = client.CoreV1Api(api), client.CoordinationV1Api(api)

    assert not is_forbidden(core.list_pod_for_all_namespaces)
    assert not is_forbidden(leases.list_namespaced_lease, namespace)
    assert is_forbidden(leases.list_namespaced_lease, "default")
    assert is_forbidden(core.list_namespaced_secret, namespace)
    assert is_forbidden(core.delete_namespaced_pod, "any", namespace)


def test_rights_end_with_the_test_that_made_them(user_with, admin):
    names = {role.metadata.name for role in client.RbacAuthorizationV1Api(admin).list_cluster_role().items}
    assert "tuner" not in names
    user_with(list(yaml.safe_load_all(RENDERED)))


def test_bare_rules_hold_in_their_namespace_alone(user_with, namespace):
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    manifests = rbac.manifests_of_rules(rules, namespace, name="reader", cluster_wide=False)
    core = client.CoreV1Api(client.ApiClient(user_with(manifests)))

    assert not is_forbidden(core.list_namespaced_config_map, namespace)
    assert is_forbidden(core.list_namespaced_config_map, "default")


def test_bindings_must_name_one_account(user_with):
    manifests = [m for m in yaml.safe_load_all(RENDERED) if not m["kind"].endswith("Binding")]
    with pytest.raises(ValueError, match="name 0 service accounts"):
        user_with(manifests)


def test_a_kubeconfig_makes_its_reader_the_user(control_plane, admin, user_with, namespace, tmp_path):
    user_with(list(yaml.safe_load_all(RENDERED)))
    token = rbac.request_token(admin, namespace, "tuner")
    path = control_plane.write_kubeconfig(tmp_path / "kubeconfig", token, namespace)

    api = config.new_client_from_config(str(path))

    review = client.AuthenticationV1Api(api).create_self_subject_review({})
    assert review.status.user_info.username == f"system:serviceaccount:{namespace}:tuner"
