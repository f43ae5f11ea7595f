"""Adapt the policies of a PyTorchJob to one trial: elastic bounds, rendezvous, gang scheduling, deadline.

A trial runs alone and with a fixed number of pods: an elastic job that shrank would train at another batch
size, and two trials that share a rendezvous would train together. Labels and
annotations of gang schedulers (Volcano, coscheduling, KAI) stay as they are, on the job and its pods.

The functions change the `spec` that they are given, which is a trial's own copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from autotuner.job.lookup import pod_count, section

_SHARED_BACKENDS: Final = frozenset({"etcd", "etcd-v2"})
"""Rendezvous backends with a server of their own; with c10d it is a pod of the job."""


def fix_replicas(spec: dict[str, Any]) -> None:
    """Set the policies so that exactly the pods of the replicas run.

    An elastic policy gets their number as both of its bounds, and loses the metrics with which an autoscaler
    would change it. Gang scheduling waits for all pods; `minResources` is removed, because it was written for
    another number of pods, and the scheduler computes it.
    """
    replicas = section(spec, "pytorchReplicaSpecs")
    elastic = spec.get("elasticPolicy")
    if isinstance(elastic, dict) and "Worker" in replicas:
        workers = pod_count(replicas["Worker"])
        spec["elasticPolicy"] = {
            **{key: value for key, value in elastic.items() if key != "metrics"},
            "minReplicas": workers,
            "maxReplicas": workers,
        }
    policy = section(spec, "runPolicy")
    scheduling = section(policy, "schedulingPolicy")
    pods = sum(map(pod_count, replicas.values()))
    if scheduling and "minAvailable" in scheduling and scheduling["minAvailable"] != pods:
        kept = {key: value for key, value in scheduling.items() if key != "minResources"}
        spec["runPolicy"] = {**policy, "schedulingPolicy": {**kept, "minAvailable": pods}}


def isolate(spec: dict[str, Any], *, job: str, trial: str) -> None:
    """Give an elastic trial a rendezvous of its own, and no restarts.

    torchrun's default `rdzv_id` is the same for all, so on a shared etcd two trials would meet. With c10d the
    host is the trial's first worker, which is the operator's default; a host that names the job's own pod
    would wait for ever. `maxRestarts` is 0, because the search decides about retries.
    """
    elastic = spec.get("elasticPolicy")
    if not isinstance(elastic, dict):
        return
    changed = {**elastic, "maxRestarts": 0, "rdzvId": trial}
    host = str(elastic.get("rdzvHost") or "")
    if elastic.get("rdzvBackend") not in _SHARED_BACKENDS and host.startswith(f"{job}-"):
        changed["rdzvHost"] = trial + host.removeprefix(job)
    spec["elasticPolicy"] = changed


def deadline(manifest: Mapping[str, Any]) -> timedelta | None:
    """Return the job's `activeDeadlineSeconds`: the limit of a trial without `trial-timeout`."""
    policy = section(section(manifest, "spec"), "runPolicy")
    seconds = policy.get("activeDeadlineSeconds")
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 < seconds < 10**9:
        return None
    return timedelta(seconds=seconds)
