"""The interface of a kind of job on a cluster: conditions, pods and states of its trials.

One module implements it for each kind; the rest of the backend uses this interface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from autotuner.backends.kubernetes import pytorch_jobs, train_jobs
from autotuner.backends.kubernetes.assess import Conditions, PodStatus, TrialStanding
from autotuner.job.kind import JobKind
from autotuner.study.logs.pushed import Push


class ClusterKind(Protocol):
    """A kind of job on a cluster; modules implement it."""

    JOB_NAME_LABEL: str
    """The label of a pod with the name of its trial."""
    KEEPS_GONE_PODS: bool
    """Whether the cluster removes pods of a trial that still matter, so that they must be cached."""

    def read_conditions(self, trial: Mapping[str, Any]) -> Conditions:
        """Read a trial's object."""
        ...

    def has_begun(self, trial: Mapping[str, Any]) -> bool:
        """Return whether a trial runs: a hint for when to poll it."""
        ...

    def pushed(self, trial: Mapping[str, Any]) -> Push | None:
        """Return the metrics that a trial's process has pushed to its status last; None without such."""
        ...

    def is_pod_of(self, pod: Mapping[str, Any], trial: Mapping[str, Any]) -> bool:
        """Return whether a pod with the trial's name in its label belongs to this trial."""
        ...

    def read_pod(self, pod: Mapping[str, Any]) -> PodStatus:
        """Read a pod."""
        ...

    def first(self, pods: Sequence[PodStatus]) -> Sequence[PodStatus]:
        """Return the pods of a trial's first attempt."""
        ...

    def ranks_by_arrival(self, trial: Mapping[str, Any]) -> bool:
        """Return whether any pod of a trial may turn out to have rank 0."""
        ...

    def stand(
        self,
        conditions: Conditions,
        pods: Sequence[PodStatus],
        now: datetime,
        patience: timedelta,
        first_seen: Mapping[str, str],
    ) -> TrialStanding:
        """Return the state of a trial; see `assess.assess`."""
        ...


_KINDS: Final[Mapping[str, ClusterKind]] = {"PyTorchJob": pytorch_jobs, "TrainJob": train_jobs}


def on_cluster(kind: JobKind) -> ClusterKind:
    """Return the implementation for a kind."""
    return _KINDS[kind.name]
