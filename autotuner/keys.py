"""All names of the autotuner's external contract.

These are the annotations that a user writes, the annotations that we write, labels, the environment of a
trial, and the names of objects. Each is defined once, so that no two places spell it differently. Nothing
here has a side effect.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

PREFIX: Final = "autotuner.dev/"
"""Prefix of the annotations that a user writes on a job. An unknown key under it is a mistake."""

STATUS_PREFIX: Final = "status.autotuner.dev/"
"""Prefix of the annotations that we write on the job; we change nothing else of it."""

TARGET: Final = PREFIX + "target"
"""Its presence registers a job."""

QUEUE: Final = PREFIX + "queue"
"""Kueue's LocalQueue for the trials; the job itself must be in none, or Kueue would start it."""

RETRIED_AT: Final = PREFIX + "retried-at"
"""Failures and losses before this moment no longer count; `autotuner retry` writes it."""

PHASE: Final = STATUS_PREFIX + "phase"
REASON: Final = STATUS_PREFIX + "reason"
MESSAGE: Final = STATUS_PREFIX + "message"
TRIALS: Final = STATUS_PREFIX + "trials"
ANSWER: Final = STATUS_PREFIX + "answer"
READS: Final = STATUS_PREFIX + "reads"
"""The first measurement, and the line of the log that it was read from."""
CANDIDATE: Final = STATUS_PREFIX + "candidate"
"""A larger setting than the answer's that is being confirmed; the answer stays until it is."""
OBSERVED: Final = STATUS_PREFIX + "observed"
PATCH: Final = STATUS_PREFIX + "patch"
"""The confirmed answer as a patch of the job, as YAML, where `apply` asks for one."""
APPLIED: Final = STATUS_PREFIX + "applied"
"""A hash of the answer that the job, or a job made for it, has been given: what its owner then does stays."""

LEDGER_SUCCESSOR: Final = STATUS_PREFIX + "continued-in"
"""Annotation of a full ledger ConfigMap: the name of the next one."""

KUEUE_PREFIX: Final = "kueue.x-k8s.io/"
QUEUE_LABEL: Final = KUEUE_PREFIX + "queue-name"
"""Kueue's label: the LocalQueue in which a job waits."""

TRIAL_PREFIX: Final = "trial.autotuner.dev/"
"""Prefix of the annotations and labels of a trial."""

SUGGESTION: Final = TRIAL_PREFIX + "suggestion"
"""Annotation: the suggestion that this trial runs, as JSON. Its parameters are stored nowhere else."""

TRIAL_TEMPLATE: Final = TRIAL_PREFIX + "template"
"""Annotation: hash of the job's `spec` that the trial was made from; a job may be fixed during a search."""

EARLIER_SECONDS: Final = TRIAL_PREFIX + "earlier-seconds"
"""Annotation: how long the trial ran before a queue suspended it and admitted it again."""

TRIAL_JOB_UID: Final = TRIAL_PREFIX + "job-uid"
"""Label: UID of the registered job that the trial belongs to."""

ANSWER_OF: Final = TRIAL_PREFIX + "answer-of"
"""Annotation of the job that was made of an answer: UID of the registered job."""

TRIAL_NUMBER: Final = TRIAL_PREFIX + "number"
"""Label: the trial's number within its job."""

ENV_PREFIX: Final = "AUTOTUNER_"
ENV_BATCH_SIZE: Final = ENV_PREFIX + "BATCH_SIZE"
ENV_SEED: Final = ENV_PREFIX + "SEED"
ENV_TRIAL: Final = ENV_PREFIX + "TRIAL"
ENV_OUTPUT_DIR: Final = ENV_PREFIX + "OUTPUT_DIR"
"""The trial's own folder, for checkpoints, below the one that the job sets under this name."""
ENV_MICRO_BATCH_SIZE: Final = ENV_PREFIX + "MICRO_BATCH_SIZE"
ENV_ACCUMULATION_STEPS: Final = ENV_PREFIX + "ACCUMULATION_STEPS"

RESERVED_PARAMETERS: Final = frozenset(
    {"batch_size", "seed", "trial", "output_dir", "micro_batch_size", "accumulation_steps"}
)
"""Names that a search space cannot use, because their environment variables are already in use."""

MAX_TRIAL_NAME: Final = 50
"""PyTorchJob's pods and Services append up to 13 characters to a name of at most 63."""

_UID_DIGITS: Final = 6


def key_of(name: str) -> str:
    """Return the annotation of a field of the spec."""
    return PREFIX + name.replace("_", "-")


def environment_name(parameter: str) -> str:
    """Return the environment variable that carries a hyperparameter into a trial."""
    return ENV_PREFIX + parameter.upper()


def parameter_name(variable: str) -> str:
    """Return the hyperparameter that a trial's environment variable carries."""
    return variable.removeprefix(ENV_PREFIX).lower()


def trial_name(job: str, uid: str, number: int, most: int = MAX_TRIAL_NAME) -> str:
    """Return the name of a trial: always the same for the same job and number.

    A long job name is cut, so that the result has at most `most` characters. The hash of the UID
    distinguishes the trials of jobs whose names start alike, and those of a job from its successor's.
    """
    suffix = f"-{hashlib.sha256(uid.encode()).hexdigest()[:_UID_DIGITS]}-{number}"
    return job[: most - len(suffix)].rstrip("-.") + suffix


def ledger_name(job: str, shard: int = 0) -> str:
    """Return the name of a ConfigMap with a job's finished trials; a full one is continued in the next."""
    return f"{job}-tuning" if shard == 0 else f"{job}-tuning-{shard}"


def running_name(job: str) -> str:
    """Return the name of the ConfigMap with the measurements of a job's running trials."""
    return f"{job}-tuning-running"


def running_key(number: int) -> str:
    """Return the key of a running trial in that ConfigMap."""
    return f"running-{number:05d}"


def running_number(key: str) -> int | None:
    """Return the number of the trial that such a key names; None if it names none."""
    match = re.fullmatch(r"running-(\d{1,9})", key)
    return int(match[1]) if match else None


def ledger_key(number: int) -> str:
    """Return the ledger's key for a trial; zero-padded, so that keys sort as numbers do."""
    return f"trial-{number:05d}"


def ledger_number(key: str) -> int | None:
    """Return the number of the trial that a ledger key names; None if it names none."""
    match = re.fullmatch(r"trial-(\d{1,9})", key)
    return int(match[1]) if match else None
