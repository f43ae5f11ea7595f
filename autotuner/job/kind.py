"""The interface of a kind of job; one module implements it for each kind.

A kind reads manifests that its validation has accepted. What the trials of all kinds have in common (names,
labels, owners and environment) is in `autotuner.job.trial_manifest`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

from autotuner.errors import Mistake
from autotuner.job.processes import Processes
from autotuner.spec import Shape
from autotuner.trial import ParameterValue, Suggestion

MAX_PODS: Final = 256
"""Maximum number of pods of one job on one machine; hundreds of processes would overload a laptop."""


@dataclass(frozen=True, slots=True)
class PodPlan:
    """One pod: its name, its training container, and the variables that the operator adds."""

    name: str
    container: Mapping[str, Any]
    environment: Mapping[str, str]


class JobKind(Protocol):
    """A kind of job, such as PyTorchJob."""

    @property
    def name(self) -> str:
        """Its Kubernetes kind."""
        ...

    @property
    def api_version(self) -> str:
        """Its API group and version."""
        ...

    @property
    def plural(self) -> str:
        """Its resource name, as in the paths of the API."""
        ...

    @property
    def container(self) -> str:
        """The name of the training container."""
        ...

    @property
    def integration(self) -> str:
        """Its name in Kueue's configuration."""
        ...

    def pods_owner(self, trial: str) -> str:
        """Return the name of the object that creates the pods of a trial, whose Events tell why it cannot."""
        ...

    def max_name(self, manifest: Mapping[str, Any]) -> int:
        """Return how long the name of a trial may be, which its pods' names begin with.

        It must not change while trials run: a trial is known by its name.
        """
        ...

    @property
    def takes_answer(self) -> bool:
        """Whether the answer can be written into the registered job. Otherwise it becomes a new job."""
        ...

    @property
    def may_retry(self) -> bool:
        """Whether the cluster may start a failed trial again by itself."""
        ...

    @property
    def documents(self) -> tuple[Mapping[str, Any], ...]:
        """Further objects that the job was read with, such as its training runtime."""
        ...

    def baseline(self, manifest: Mapping[str, Any]) -> Mapping[str, ParameterValue]:
        """Return the known-good values of the job's own environment, by hyperparameter name."""
        ...

    def with_inherited(self, manifest: Mapping[str, Any]) -> tuple[Mapping[str, Any], Collection[str]]:
        """Return the manifest with the command, arguments and environment that its containers inherit.

        And the names of the fields that they inherit whole.
        """
        ...

    def shape(self, manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> Shape:
        """Return the processes that the job runs."""
        ...

    def processes(self, manifest: Mapping[str, Any]) -> Processes:
        """Return what the manifest says about the processes of the job's pods."""
        ...

    def devices(self, manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> int:
        """Return how many GPUs the job asks for, or how many processes it runs where it asks for none."""
        ...

    def deadline(self, manifest: Mapping[str, Any]) -> timedelta | None:
        """Return the maximum duration of a trial without the annotation `trial-timeout`."""
        ...

    def mistakes(self, manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> list[Mistake]:
        """Return the mistakes in the job's processes, given what its annotations require."""
        ...

    def template(self, manifest: Mapping[str, Any]) -> object:
        """Return what trials are made from, as JSON without `suspend`."""
        ...

    def trial_spec(
        self,
        manifest: Mapping[str, Any],
        suggestion: Suggestion,
        variables: Mapping[str, str],
        *,
        trial: str,
        queued: bool,
    ) -> dict[str, Any]:
        """Return the `spec` of the trial with this name; a queued one is suspended until Kueue admits it."""
        ...

    def answered_spec(
        self,
        manifest: Mapping[str, Any],
        suggestion: Suggestion,
        variables: Mapping[str, str],
        *,
        queued: bool,
    ) -> dict[str, Any]:
        """Return the job's `spec` with the answer applied; a queued job is suspended."""
        ...

    def answer_patch(self, manifest: Mapping[str, Any], answered: Mapping[str, Any]) -> dict[str, Any]:
        """Return the merge patch (RFC 7386) from the job's `spec` to the answered one."""
        ...

    def pod_plans(self, manifest: Mapping[str, Any], address: str, port: int) -> list[PodPlan]:
        """Return the pods of a job or a trial, rank 0 first; its rendezvous is at the address and port.

        Raises:
            InvalidJob: If there are too many for one machine.
        """
        ...
