"""The backend of a cluster: trials are objects, the ledger is a ConfigMap, the status is annotations.

`api` is the client of the API server, `pods` parses pods and conditions of jobs, `logs` follows logs,
`backend` implements `Backend`, and `readers` serves the commands that only read.
"""

from autotuner.backends.kubernetes.api import Api, RequestFailed, connect
from autotuner.backends.kubernetes.backend import KubernetesBackend

__all__ = ["Api", "KubernetesBackend", "RequestFailed", "connect"]
