"""Replicas, micro-batches and accumulation of trials follow the batch size, and what memory has taught."""

from __future__ import annotations

from autotuner import keys
from autotuner.trial import Outcome
from tests.cluster.controllers import running
from tests.cluster.test_outcomes import wait_until_running
from tests.cluster.tuned_jobs import TunedJob, image_of
from tests.controlplane.waiting import eventually

ANNOTATIONS = {keys.PREFIX + "workers": "1..3", keys.PREFIX + "micro-batch-size": "32..512"}


class Training:
    """A training that meets the target at any batch size; trial 1 hangs, for the test to end.

    `told` has, by trial, what each process was told: its rank, how many there are, the micro-batch and the
    accumulation steps.
    """

    def __init__(self):
        self.told = {}

    def __call__(self, invocation):
        names = ("RANK", "WORLD_SIZE", keys.ENV_MICRO_BATCH_SIZE, keys.ENV_ACCUMULATION_STEPS)
        trial = invocation.environment.get(keys.ENV_TRIAL, "the job itself")
        texts = [invocation.environment.get(name) for name in names]
        told = tuple(None if text is None else int(text) for text in texts)
        self.told.setdefault(trial, []).append(told)
        # The end of the first process is the trial's: it waits until all have started.
        while len(self.told[trial]) < told[1]:
            yield 0.05, "waits"
        if trial == "1":
            yield 3600, "never"
        yield 0.1, "accuracy=0.95 epoch=4"


def everyone(count, micro_batch, steps):
    return [(rank, count, micro_batch, steps) for rank in range(count)]


def test_an_injected_out_of_memory_shrinks_the_micro_batch_of_all_that_follows(
    admin, namespace, nodes, new_controller
):
    training = Training()
    nodes.add_image("example/training", image_of(training))
    job = TunedJob(workers=1, annotations={**ANNOTATIONS, keys.PREFIX + "apply": "true"}).create(
        admin, namespace
    )

    with running(new_controller()):
        wait_until_running(job, 1)
        nodes.fail_for_cuda_memory(namespace, wait_until_running(job, 1, "worker-0"))
        eventually(job.is_in("Done", "Failed", "Invalid"), 120)
        eventually(lambda: len(training.told.get("the job itself", ())) == 4)

    assert job.phase == "Done", job.status
    assert job.answer["batch_size"] == 1024
    seen = {trial: sorted(told) for trial, told in training.told.items()}
    assert seen == {
        "0": everyone(2, None, None),
        "1": everyone(2, 256, 1),
        # The same batch in pieces that are known to fit; then the next one, with all workers, in two steps.
        "2": everyone(4, 128, 1),
        "3": everyone(4, 128, 2),
        "4": everyone(4, 128, 2),
        # Its answer, layout included, is given to the job.
        "the job itself": everyone(4, 128, 2),
    }
    ledger = job.ledger()
    assert [t.outcome for t in ledger] == [
        Outcome.REACHED,
        Outcome.OUT_OF_MEMORY,
        *[Outcome.REACHED] * 3,
    ]
    assert [t.suggestion.batch_size for t in ledger] == [256, 512, 512, 1024, 1024]
    assert ledger[2].suggestion.rerun_of == 1
    assert [t.devices for t in ledger] == [2, 2, 4, 4, 4]
