"""`autotuner render`: print the trial that would be submitted, and submit nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from autotuner import keys
from autotuner.cli.exit_codes import Reported
from autotuner.cli.job_file import Runtime, load_job
from autotuner.cli.studies import Context, Namespace, find
from autotuner.decide.standing import trial_seed
from autotuner.errors import InvalidJob, Mistake
from autotuner.job.job import Job
from autotuner.job.trial_manifest import trial_manifest
from autotuner.spec import TuningSpec
from autotuner.study.layout import lay_out
from autotuner.study.layout_bounds import bounds_of, laid_out, nearest_size
from autotuner.trial import ParameterValue, Suggestion


def render(  # noqa: PLR0913, PLR0917 (its options are the parameters)
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB", help="The file of a job, the folder of a local study, or a job of the cluster."
        ),
    ],
    batch_size: Annotated[int, typer.Option(help="The global batch size of the trial.")],
    given: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A hyperparameter; the job's own value without it."),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    runtime: Runtime = None,
) -> None:
    """Print the trial that would be submitted at a batch size, as YAML."""
    with Reported():
        file = Path(job)
        read = load_job(file, runtime) if file.is_file() else find(job, namespace, context).job
        made = rendered(read, batch_size, parsed(given or ()))
        typer.echo(yaml.safe_dump(made, sort_keys=False, allow_unicode=True), nl=False)


def parsed(given: Sequence[str]) -> dict[str, str]:
    """Return `NAME=VALUE` texts as a mapping.

    Raises:
        InvalidJob: If one has no `=`.
    """
    pairs = [text.partition("=") for text in given]
    wrong = [name for name, equals, _ in pairs if not equals]
    if wrong:
        rule = "must be NAME=VALUE"
        raise InvalidJob([Mistake("--set", name, rule, "--set learning_rate=0.1") for name in wrong])
    return {name.strip(): value.strip() for name, _, value in pairs}


def rendered(job: Job, batch_size: int, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the manifest of a job's trial at a batch size, with the given hyperparameters.

    Hyperparameters that are not given have the job's own values.

    Raises:
        InvalidJob: The job has mistakes, the batch size is not allowed or has no layout (the message names
            the nearest one that has), or a hyperparameter is not in the search space.
    """
    spec = job.spec()
    limits = bounds_of(spec)
    mistakes: list[Mistake] = []
    parameters = _parameters(spec, given, mistakes)
    nearest = nearest_size(batch_size, limits, spec.batch_size)
    if batch_size not in spec.batch_size:
        rule = f"must lie within {keys.PREFIX}batch-size, {spec.batch_size}"
        mistakes.append(Mistake("--batch-size", str(batch_size), rule, str(nearest)))
    elif nearest != batch_size:
        rule = (
            "must be divided evenly among the processes of the trial, within the bounds of the job:"
            f" the nearest batch size that can is {nearest}"
        )
        mistakes.append(Mistake("--batch-size", str(batch_size), rule, str(nearest)))
    if mistakes:
        raise InvalidJob(mistakes)
    suggestion = Suggestion(0, batch_size, parameters, trial_seed(spec, 0))
    trial = trial_manifest(job, laid_out(suggestion, spec, lay_out(batch_size, limits)))
    if not job.uid:
        # A job that was read from a file has no UID, and the API server refuses an owner without one.
        del trial["metadata"]["ownerReferences"]
    return trial


def _parameters(
    spec: TuningSpec, given: Mapping[str, str], mistakes: list[Mistake]
) -> dict[str, ParameterValue]:
    found = dict(spec.baseline_parameters)
    for name, text in given.items():
        dimension = spec.search_space.get(name)
        if dimension is None:
            rule = f"must be a hyperparameter of the search space, one of {', '.join(spec.search_space)}"
            mistakes.append(Mistake(f"--set {name}", text, rule, f"{next(iter(spec.search_space))}=..."))
            continue
        try:
            found[name] = dimension.parse(text)
        except ValueError as error:
            rule = str(error)
            mistakes.append(Mistake(f"--set {name}", text, rule, f"{name}={found.get(name, '...')}"))
    return found
