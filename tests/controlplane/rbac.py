"""Users with exactly the rights that some RBAC objects give, such as a chart's rendered ones.

A user is a real service account with a token from the API, so its rights are what the API server
makes of the objects, not what a test believes of them.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from kubernetes import client

from tests.controlplane.objects import create

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BINDINGS = ("RoleBinding", "ClusterRoleBinding")
_CLUSTER_SCOPED = ("ClusterRole", "ClusterRoleBinding")


def create_user(admin: client.ApiClient, manifests: Sequence[Mapping[str, Any]], namespace: str) -> str:
    """Create the objects and return a token of the service account that their bindings name.

    ``manifests`` are roles, bindings and service accounts, as rendered; other kinds are ignored, so
    a chart's whole output will do. What names no namespace goes to ``namespace``. A service account
    that a binding names but the manifests lack is created. Remove them with `delete_user`.

    Raises:
        ValueError: the bindings name no service account, or more than one.
    """
    (account_namespace, account), *others = _subjects(manifests, namespace) or [("", "")]
    if others or not account:
        raise ValueError(
            f"the bindings name {len(others) + bool(account)} service accounts: give manifests "
            f"whose RoleBindings and ClusterRoleBindings name exactly one"
        )
    wanted = [_in_namespace(manifest, namespace) for manifest in manifests if _is_about_access(manifest)]
    if not any(manifest["kind"] == "ServiceAccount" for manifest in wanted):
        metadata = {"name": account, "namespace": account_namespace}
        wanted.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    for manifest in wanted:
        create(admin, manifest, namespace)
    return request_token(admin, account_namespace, account)


def request_token(admin: client.ApiClient, namespace: str, account: str) -> str:
    """Return a fresh token of a service account, good for an hour."""
    request = client.AuthenticationV1TokenRequest(
        spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=3600)
    )
    answer = client.CoreV1Api(admin).create_namespaced_service_account_token(account, namespace, request)
    assert answer.status is not None
    return str(answer.status.token)


def delete_user(admin: client.ApiClient, manifests: Sequence[Mapping[str, Any]]) -> None:
    """Delete the cluster-wide objects that `create_user` made of the same manifests, if there.

    The others go with their namespace.
    """
    api = client.RbacAuthorizationV1Api(admin)
    deletions = {
        "ClusterRole": api.delete_cluster_role,
        "ClusterRoleBinding": api.delete_cluster_role_binding,
    }
    for manifest in manifests:
        if delete := deletions.get(manifest["kind"]):
            try:
                delete(manifest["metadata"]["name"])
            except client.ApiException as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise


def manifests_of_rules(
    rules: Sequence[Mapping[str, Any]], namespace: str, *, name: str, cluster_wide: bool
) -> list[dict[str, Any]]:
    """Return a service account, and a role with ``rules`` that is bound to it.

    The rules hold in ``namespace``, or with ``cluster_wide`` everywhere.
    """
    prefix = "Cluster" if cluster_wide else ""
    group = "rbac.authorization.k8s.io"
    metadata = {"name": name, "namespace": namespace}
    role_metadata = {"name": name} if cluster_wide else metadata
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": f"{group}/v1",
            "kind": f"{prefix}Role",
            "metadata": role_metadata,
            "rules": list(rules),
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": f"{prefix}RoleBinding",
            "metadata": role_metadata,
            "roleRef": {"apiGroup": group, "kind": f"{prefix}Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        },
    ]


def _is_about_access(manifest: Mapping[str, Any]) -> bool:
    return manifest["kind"] in (*_BINDINGS, "Role", "ClusterRole", "ServiceAccount")


def _in_namespace(manifest: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """Return the manifest with the namespaces spelt out that kubectl or Helm would add."""
    completed = dict(manifest)
    if manifest["kind"] not in _CLUSTER_SCOPED:
        completed["metadata"] = {"namespace": namespace, **manifest["metadata"]}
    if manifest["kind"] in _BINDINGS:
        completed["subjects"] = [
            {"namespace": namespace, **subject} if subject["kind"] == "ServiceAccount" else subject
            for subject in manifest["subjects"]
        ]
    return completed


def _subjects(manifests: Sequence[Mapping[str, Any]], namespace: str) -> list[tuple[str, str]]:
    """Return namespace and name of each service account that a binding names, once."""
    found = {
        (subject.get("namespace", namespace), subject["name"]): None
        for manifest in manifests
        if manifest["kind"] in _BINDINGS
        for subject in manifest["subjects"]
        if subject["kind"] == "ServiceAccount"
    }
    return list(found)
