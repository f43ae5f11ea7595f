"""The registered job: a template that the tuner never changes, except for its own annotations.

`Job.from_manifest` reads and validates the job once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from autotuner import keys
from autotuner.errors import InvalidJob, Mistake, Unrealisable
from autotuner.job import kinds
from autotuner.job.config_maps import ConfigMaps, files_of
from autotuner.job.kind import JobKind
from autotuner.job.pytorchjob import PYTORCHJOB
from autotuner.job.training_runtime import BUILT_IN
from autotuner.job.unset import unset_variables
from autotuner.spec import Shape, TuningSpec
from autotuner.study.layout_bounds import bounds_of
from autotuner.trial import ParameterValue

_READING: Final = frozenset({keys.TARGET, keys.PREFIX + "metric-pattern", keys.PREFIX + "log-format"})
"""Annotations that determine how a log is read."""


@dataclass(frozen=True, slots=True)
class Job:
    """A registered job of any kind: a template that the tuner never changes, except for its own annotations.

    `warnings` are problems that do not keep the job from being tuned, and `files` those that its containers
    have from ConfigMaps of its file, by path.
    """

    name: str
    namespace: str
    uid: str
    annotations: Mapping[str, str]
    manifest: Mapping[str, Any]
    warnings: tuple[Mistake, ...] = ()
    kind: JobKind = PYTORCHJOB
    files: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def from_manifest(
        cls,
        manifest: object,
        runtimes: kinds.Runtimes = BUILT_IN.get,
        config_maps: ConfigMaps = MappingProxyType({}),
    ) -> Job:
        """Read a job, from a file or from the API server.

        `runtimes` finds the training runtime that a TrainJob refers to, and `config_maps` are those of the
        job's file.

        Raises:
            InvalidJob: If its kind is not supported, or if it has mistakes.
        """
        # On a laptop the job may have no images.
        kind, found = kinds.read(manifest, runtimes)
        checked = dict(found.manifest)
        metadata = checked["metadata"]
        return cls(
            name=str(metadata["name"]),
            namespace=str(metadata.get("namespace") or "default"),
            uid=str(metadata.get("uid") or ""),
            annotations=metadata.get("annotations") or {},
            manifest=checked,
            warnings=found.warnings,
            kind=kind,
            files=files_of(checked, config_maps, kind.documents),
        )

    def trial_name(self, number: int) -> str:
        """Return the name of a trial of the job."""
        return keys.trial_name(self.name, self.uid, number, self.kind.max_name(self.manifest))

    @property
    def is_registered(self) -> bool:
        """Whether the job asks to be tuned."""
        return keys.TARGET in self.annotations

    @property
    def is_deleted(self) -> bool:
        """Whether the job is being deleted."""
        return "deletionTimestamp" in self.manifest["metadata"]

    @property
    def owner_reference(self) -> dict[str, Any]:
        """The owner reference with which the garbage collector removes an object together with the job.

        It is not a controller reference, because Kueue does not queue the children of a queued job.
        """
        return {
            "apiVersion": self.kind.api_version,
            "kind": self.kind.name,
            "name": self.name,
            "uid": self.uid,
            "controller": False,
            "blockOwnerDeletion": False,
        }

    @property
    def baseline(self) -> Mapping[str, ParameterValue]:
        """The known-good values in the job's environment, by hyperparameter name."""
        return self.kind.baseline(self.manifest)

    @property
    def output_directory(self) -> str:
        """The output folder that the job's environment names; empty if there is none."""
        return str(self.baseline.get("output_dir", ""))

    @property
    def shape(self) -> Shape:
        """The processes that the job runs."""
        return self.kind.shape(self.manifest, self.annotations)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that the user can change, annotations and template, except for `suspend`.

        The UID is part of it: `kubectl get -o yaml` writes the status too, and a job that is created from
        that file is another one, without trials.
        """
        asked = {key: value for key, value in self.annotations.items() if key.startswith(keys.PREFIX)}
        asked |= self._trial_labels
        return _digest([self.uid, asked, self.kind.template(self.manifest)])

    @property
    def template(self) -> str:
        """A hash of what trials are made from, except for `suspend`."""
        return _digest(self.kind.template(self.manifest))

    def with_spec(self, spec: Mapping[str, Any]) -> Job:
        """Return the job with another `spec`."""
        return replace(self, manifest={**self.manifest, "spec": dict(spec)})

    def readable_spec(self) -> TuningSpec | None:
        """Return a spec that can read running trials although the job has mistakes; None if there is none.

        It leaves out the annotations with mistakes, and has the job's own batch size in the place of a wrong
        range, which must not be left out. No trial may be started with it.
        """
        try:
            return self.spec()
        except InvalidJob as error:
            wrong = {mistake.key for mistake in error.mistakes}
        if wrong & _READING:
            return None
        right = {key: value for key, value in self.annotations.items() if key not in wrong}
        own = self.baseline.get("batch_size", 1)
        for further in ({}, {keys.key_of("batch_size"): f"{own}..{own}"}):
            with contextlib.suppress(InvalidJob):
                return self._parsed({**right, **further})
        return None

    def spec(self) -> TuningSpec:
        """Return the parsed annotations of the job; InvalidJob lists every mistake."""
        wrong = [*self.kind.mistakes(self.manifest, self.annotations), *self._copied_from_trial()]
        try:
            spec = self._parsed(self.annotations)
        except InvalidJob as error:
            raise InvalidJob([*error.mistakes, *wrong]) from None
        if wrong:
            raise InvalidJob(wrong)
        try:
            bounds_of(spec)
        except Unrealisable as error:
            asked = str(spec.batch_size)
            raise InvalidJob([Mistake(keys.PREFIX + "batch-size", asked, str(error), "256..32768")]) from None
        whole, inherited = self.kind.with_inherited(self.manifest)
        unset = list(unset_variables(whole, spec, self.baseline, inherited))
        if unset:
            raise InvalidJob(unset)
        own = self.kind.deadline(self.manifest)
        if spec.trial_timeout is None and own is not None:
            return spec.model_copy(update={"trial_timeout": own})
        return spec

    @property
    def _trial_labels(self) -> dict[str, str]:
        labels = self.manifest["metadata"].get("labels") or {}
        return {key: str(value) for key, value in labels.items() if key.startswith(keys.TRIAL_PREFIX)}

    def _copied_from_trial(self) -> Iterator[Mistake]:
        """Yield a mistake for each label that marks the job as a trial."""
        for key, value in self._trial_labels.items():
            rule = "marks a trial, and trials are not tuned: remove the label from the job"
            yield Mistake(
                f"label {key}", value, rule, f"kubectl label {self.kind.name.lower()} {self.name} {key}-"
            )

    def _parsed(self, annotations: Mapping[str, str]) -> TuningSpec:
        return TuningSpec.from_annotations(
            annotations, baseline=self.baseline, shape=self.shape, template=self.template
        )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
