"""Trials as PyTorchJobs on a cluster, the ledger as a ConfigMap, the status as the job's own annotations.

`api` talks to the API server, `pods` reads pods and job conditions into plain values, `logs` follows logs,
`backend` is the `Backend`, and `readers` answers the commands that only look.
"""

from autotuner.backends.kubernetes.api import Api, RequestFailed, connect
from autotuner.backends.kubernetes.backend import KubernetesBackend

__all__ = ["Api", "KubernetesBackend", "RequestFailed", "connect"]
