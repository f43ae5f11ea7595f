"""The client of the Kubernetes API server; all requests go through it.

Five verbs over plain JSON, each with a timeout and the User-Agent `autotuner/<version>`. Every failure
becomes a `RequestFailed`, a `BackendError` with the HTTP status. The generated methods of the official client
are not used: they build a tree of model objects for every listed pod (slow, and large), have no default
timeout, and guess a patch's content type. Its connection handling, configuration and credentials (token files
that rotate, exec plug-ins) are used.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.config import incluster_config

import autotuner
from autotuner.errors import BackendError, InvalidConfiguration
from autotuner.job.kind import JobKind
from autotuner.job.pytorchjob import PYTORCHJOB
from autotuner.job.training_runtime import API_VERSION as RUNTIMES
from autotuner.job.training_runtime import CLUSTER_KIND, RuntimeReference

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 15.0

CORE: Final = "/api/v1"

_JSON: Final = "application/json"
_MAX_BODY: Final = 500
_NO_LOG: Final = re.compile(
    r"unable to retrieve container logs for |failed to (try resolving symlinks in path|open log file"
    r'|tail \d+ lines of log file|seek \d+ in log file|read log file|reset seek in log file) "'
)
"""The kubelet's messages for a log that it cannot read.

It sends status 200 before it looks for the log, and the message as its last line, without a newline
(https://github.com/kubernetes/kubernetes/issues/142258).
"""

_NO_REFUSALS: Final = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.CONFLICT,
        HTTPStatus.GONE,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
"""Client errors that say nothing about what was asked for, or that something else has changed."""

_UNREADABLE: Final = (config.ConfigException, OSError, ValueError, TypeError, yaml.YAMLError)
"""What the official client raises for a kubeconfig that is missing, incomplete or not valid YAML."""

OnRequest = Callable[[str, str], None]
"""Called with the verb and the HTTP status of each request; the status is `error` without an answer."""


class RequestFailed(BackendError):
    """A request that the API server refused, or that never reached it.

    `status` is the HTTP status, 0 without an answer. `retry_after` is the number of seconds that the server
    asks to wait, 0 if it does not say.
    """

    def __init__(self, message: str, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    @property
    def is_not_found(self) -> bool:
        """Whether the object does not exist."""
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def is_conflict(self) -> bool:
        """Whether the object exists already, or has changed since it was read."""
        return self.status == HTTPStatus.CONFLICT

    @property
    def is_refusal(self) -> bool:
        """Whether the cluster's rules forbid it: a policy, a quota, a webhook, which may choose any code."""
        return 400 <= self.status <= 499 and self.status not in _NO_REFUSALS  # noqa: PLR2004 (as below)


class Api:
    """An API server; safe to use from many threads at once.

    While `may_change` returns False, only reading is possible.
    """

    def __init__(self, configuration: client.Configuration, on_request: OnRequest | None = None) -> None:
        # One retry, for a pooled connection that the server has closed; the work queue does the back-off.
        configuration.retries = urllib3.Retry(
            total=1, redirect=0, other=0, status=0, backoff_factor=0, respect_retry_after_header=False
        )
        self._client = client.ApiClient(configuration)
        self._client.user_agent = f"autotuner/{autotuner.__version__}"
        self._on_request = on_request or (lambda _verb, _code: None)
        self.may_change: Callable[[], bool] = lambda: True

    @property
    def client(self) -> client.ApiClient:
        """The official client's connection, for its leader election."""
        return self._client

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """Read one object."""
        return self._json("get", "GET", path, query=query)

    def list(self, path: str, *, accept: str = _JSON, **query: object) -> dict[str, Any]:
        """Read a whole collection; `accept` names another representation of it, such as metadata alone."""
        return self._json("list", "GET", path, query=query, accept=accept)

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object in a collection."""
        return self._json("create", "POST", path, body=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `body` into an object (RFC 7386)."""
        return self._json("patch", "PATCH", path, body=body, content_type="application/merge-patch+json")

    def delete(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Delete an object; `body` is the DeleteOptions."""
        return self._json("delete", "DELETE", path, body=body)

    def log(self, namespace: str, pod: str, **query: object) -> str:
        """Read a pod's log; invalid UTF-8 is replaced. The verb in metrics is `log`.

        Raises:
            RequestFailed: If the log cannot be read, also if its node sends an error message instead of it.
        """
        path = core_path(namespace, "pods", pod) + "/log"
        response = self._send("log", "GET", path, query=query, accept="*/*")
        text = self._read(response).decode("utf-8", errors="replace")
        last = text.rpartition("\n")[2]
        if _NO_LOG.match(last):
            raise RequestFailed(f"log {path}: {last[:_MAX_BODY]}")
        return text

    def stream(self, path: str, *, accept: str, read_seconds: float, **query: object) -> urllib3.HTTPResponse:
        """Open a watch; the caller reads the response and closes it.

        A silence of more than `read_seconds` raises from the read.
        """
        return self._send("watch", "GET", path, query=query, accept=accept, read_seconds=read_seconds)

    def _json(self, verb: str, method: str, path: str, **parts: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the object that a request is answered with; the `parts` are those of `_send`."""
        if method != "GET" and not self.may_change():
            raise RequestFailed(f"{verb} {path}: not sent, because another controller may lead by now")
        return _object(self._read(self._send(verb, method, path, **parts)), path)

    def _send(  # noqa: PLR0913 (the parts of an HTTP request)
        self,
        verb: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        read_seconds: float = READ_SECONDS,
    ) -> urllib3.HTTPResponse:
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            request = self._client.param_serialize(
                method,
                path,
                query_params=[(name, value) for name, value in (query or {}).items() if value is not None],
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            timeout = (CONNECT_SECONDS, read_seconds)
            answer: urllib3.HTTPResponse = self._client.call_api(*request, _request_timeout=timeout).response
        except (urllib3.exceptions.HTTPError, client.ApiException, OSError) as error:
            self._on_request(verb, "error")
            raise RequestFailed(f"{verb} {path}: {_reason(error)}") from error
        self._on_request(verb, str(answer.status))
        if not 200 <= answer.status <= 299:  # noqa: PLR2004 (HTTP's own numbers)
            raise _failure(verb, path, answer)
        return answer

    def _read(self, response: urllib3.HTTPResponse) -> bytes:
        try:
            data: bytes = response.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise RequestFailed(f"the answer broke off: {_reason(error)}") from error
        finally:
            response.release_conn()
        return data


def connect(on_request: OnRequest | None = None, context: str | None = None) -> Api:
    """Return the API server of `context` or KUBECONFIG, else of this pod's cluster, else of ~/.kube/config.

    Raises:
        InvalidConfiguration: If there is none.
    """
    configuration = client.Configuration()
    if not _is_of_pod(context, configuration):
        try:
            config.load_kube_config(client_configuration=configuration, context=context)
        except _UNREADABLE as error:
            asked = context is not None or _named_file()
            tried = "" if asked else "this process is not in a pod with a service account, and "
            raise InvalidConfiguration(
                f"there is no cluster: {tried}{' '.join(str(error).split())};"
                " set KUBECONFIG to a kubeconfig file with a current context"
            ) from error
    return Api(configuration, on_request)


def current_namespace(context: str | None = None) -> str:
    """Return the namespace of the kubeconfig's context, or of this pod; `default` without one."""
    if _is_of_pod(context, client.Configuration()):
        try:
            return Path(incluster_config.SERVICE_TOKEN_FILENAME).with_name("namespace").read_text().strip()
        except OSError:
            return "default"
    try:
        contexts, active = config.list_kube_config_contexts()
    except _UNREADABLE:
        return "default"
    chosen = next((c for c in contexts if c.get("name") == context), active) if context else active
    return str((chosen or {}).get("context", {}).get("namespace") or "default")


def _is_of_pod(context: str | None, configuration: client.Configuration) -> bool:
    """Configure the service account of this process's pod; return whether it is the one to use."""
    if context is not None or _named_file():
        return False
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        return False
    return True


def _named_file() -> str:
    return os.environ.get("KUBECONFIG", "")


def group_path(kind: JobKind) -> str:
    """Return the path of a kind's API group and version."""
    return f"/apis/{kind.api_version}"


def jobs_path(namespace: str | None, name: str | None = None, kind: JobKind = PYTORCHJOB) -> str:
    """Return the path of one job of a kind, of those of a namespace, or of all (namespace None)."""
    return _path(group_path(kind), namespace, kind.plural, name)


def runtime_path(reference: RuntimeReference, namespace: str) -> str:
    """Return the path of a training runtime; `namespace` is that of the job that refers to it."""
    is_of_cluster = reference.kind == CLUSTER_KIND
    plural = f"{reference.kind.lower()}s"
    return _path(f"/apis/{RUNTIMES}", None if is_of_cluster else namespace, plural, reference.name)


def core_path(namespace: str, kind: str, name: str | None = None) -> str:
    """Return the path of objects of the core group, such as `pods`."""
    return _path(CORE, namespace, kind, name)


def _path(group: str, namespace: str | None, kind: str, name: str | None) -> str:
    where = "" if namespace is None else f"/namespaces/{quote(namespace, safe='')}"
    return f"{group}{where}/{kind}" + ("" if name is None else f"/{quote(name, safe='')}")


def _object(data: bytes, path: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise RequestFailed(f"{path}: the answer is not JSON: {data[:80]!r}") from error
    if not isinstance(value, dict):
        raise RequestFailed(f"{path}: the answer is not an object: {data[:80]!r}")
    return value


def _failure(verb: str, path: str, answer: urllib3.HTTPResponse) -> RequestFailed:
    try:
        data = answer.read(64 * 1024)
    except (urllib3.exceptions.HTTPError, OSError):
        data = b""
    answer.close()
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, TypeError, KeyError):
        message = data.decode("utf-8", errors="replace")
    try:
        retry_after = float(answer.headers.get("Retry-After", 0))
    except ValueError:
        retry_after = 0.0
    return RequestFailed(
        f"{verb} {path}: {answer.status} {message[:_MAX_BODY]}", answer.status, max(0.0, retry_after)
    )


def _reason(error: Exception) -> str:
    # urllib3 wraps: "HTTPSConnectionPool(...): Max retries exceeded with url: ... (Caused by ...)"
    text = str(error)
    caused = re.search(r"\(Caused by (.+)\)$", text)
    return (caused[1] if caused else text or type(error).__name__)[:_MAX_BODY]
