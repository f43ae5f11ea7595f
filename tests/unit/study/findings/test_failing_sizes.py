"""The batch sizes with which a program fails, from the trials alone."""

from dataclasses import replace

import pytest

from autotuner.study.findings.failing_sizes import (
    Spacing,
    failing_sizes,
    has_failed,
    settings_that_fail,
    sizes_that_fail,
    sizes_without_memory,
    to_tell_apart,
)
from autotuner.study.history import History
from autotuner.study.setting import Setting
from autotuner.trial import Outcome, Purpose, Trial
from tests.builders import spec, suggestion, trial

BASELINE = trial(0, (0.5, 0.95), Outcome.REACHED, suggestion(0, purpose=Purpose.BASELINE))
ERROR = "exit code 1: Traceback\nAssertionError: batch {} does not fit\nthe whole log: /x/trial-{}.log"


def failed(number: int, size: int, rate: float = 0.1, message: str = ERROR, **changed: object) -> Trial:
    tried = suggestion(number, batch_size=size, parameters={"learning_rate": rate})
    ended = trial(number, (), Outcome.FAILED, tried, message=message.format(size, number))
    return replace(ended, **changed)  # type: ignore[arg-type]


def works(number: int, size: int, rate: float = 0.1) -> Trial:
    tried = suggestion(number, batch_size=size, parameters={"learning_rate": rate})
    return trial(number, (0.5, 0.95), Outcome.REACHED, tried)


def history(*trials: Trial) -> History:
    return History.of(spec(batch_size="16..1024"), [BASELINE, *trials])


def test_a_failure_with_another_learning_rate_is_no_fault_of_the_batch_size():
    assert failing_sizes(history(failed(1, 64, 0.3), failed(2, 128, 0.4))).trials == ()


def test_a_failure_with_hyperparameters_that_work_at_a_smaller_batch_explains_others_with_its_message():
    other = failed(3, 90, 0.2, "exit code 1: RuntimeError: no space left")
    found = failing_sizes(history(failed(1, 128, 0.3), failed(2, 100), other))
    assert [t.number for t in found.trials] == [1, 2]
    assert (found.bound, found.spacing) == (100, Spacing.ANY)


@pytest.mark.parametrize(
    ("sizes", "spacing", "bound"),
    [
        ((45, 50), Spacing.MULTIPLES, None),
        ((45, 96), Spacing.POWERS, None),
        ((45, 160), Spacing.MULTIPLES, 160),
        ((45, 256), Spacing.MULTIPLES, 256),
    ],
)
def test_a_larger_batch_that_works_shows_a_spacing(
    sizes: tuple[int, ...], spacing: Spacing, bound: int | None
):
    trials = [works(1, 64, 0.2), works(2, 128, 0.4)]
    found = failing_sizes(history(*trials, *(failed(3 + i, size) for i, size in enumerate(sizes))))
    assert (found.spacing, found.bound) == (spacing, bound)


def test_failures_that_no_spacing_explains_are_the_programs():
    assert (
        failing_sizes(history(works(1, 64), failed(2, 48), failed(3, 32, 0.2))).spacing is Spacing.MULTIPLES
    )
    assert failing_sizes(history(works(1, 128), failed(2, 64))).trials == ()


def test_what_failed_before_a_retry_or_with_another_template_no_longer_counts():
    old = failed(1, 64, template="old/1")
    current = spec(batch_size="16..1024").model_copy(update={"template": "new/1"})
    assert failing_sizes(History.of(current, [BASELINE, old])).trials == ()


def test_the_next_run_has_hyperparameters_that_work_at_the_largest_smaller_batch():
    row = [failed(2, 256, 0.9), failed(3, 200, 0.8)]
    seen = history(works(1, 128, 0.4), *row)
    assert to_tell_apart(seen, row) == Setting(200, (("learning_rate", 0.4),))
    assert to_tell_apart(history(works(1, 128, 0.4), *row, failed(4, 200, 0.4)), ()) == Setting(
        256, (("learning_rate", 0.4),)
    )


def test_the_warning_names_sizes_error_and_remedy():
    (found,) = sizes_that_fail(history(failed(1, 128, 0.3), failed(2, 100)))
    assert (
        "fails at batch size 100, 128, also with hyperparameters that work at a smaller one" in found.message
    )
    assert "batches from 100 on are left out" in found.message
    assert "Trial 2: AssertionError: batch 100 does not fit. To try" in found.message
    assert "retry" in found.message


def test_a_run_of_the_unchanged_job_alone_proves_nothing():
    once = trial(0, (), Outcome.FAILED, suggestion(0, purpose=Purpose.BASELINE))
    assert failing_sizes(History.of(spec(), [once, failed(1, 64)])).trials == ()


@pytest.mark.parametrize("last", ["epoch 12 train_loss=0.08", "bye {}"])
def test_a_run_without_a_value_is_said_to_be_one_whatever_its_log_ends_with(last: str):
    """The validation has no whole batch left: the last line of the log is no error."""
    silent = (
        "the run ended well, but no line of its log carries accuracy: print it; the log ends: {}\n" + last
    )
    runs = (failed(1, 128, 0.3, silent, is_complete=True), failed(2, 100, 0.1, silent, is_complete=True))
    other = failed(3, 160, 0.3, silent + " (another end)", is_complete=True)
    (found,) = sizes_that_fail(history(*runs, other))
    assert found.trials == (1, 2, 3)
    assert "Trial 3: the run ended well, but no line of its log carries accuracy. To try" in found.message


def test_a_program_that_fails_with_chosen_hyperparameters_is_told_with_its_error():
    """Such as `choices=` of argparse: every proposal failed, and no message said so."""
    error = "exit code 2: train.py: error: argument --lr: invalid choice: {} (choose from 0.1, 0.2)"
    row = [failed(1, 64, 0.13, error), failed(2, 64, 0.15, error), failed(4, 48, 0.17, error)]
    assert settings_that_fail(history(*row[:2])) == []
    (found,) = settings_that_fail(history(*row, works(3, 64, 0.2)))
    assert found.trials == (1, 2, 4)
    (later,) = settings_that_fail(history(*row, works(3, 64, 0.2), failed(5, 64, 0.19, error)))
    assert later.message == found.message
    assert "trials 1, 2, 4, the last of them with batch size 48, learning_rate 0.17" in found.message
    assert "invalid choice: 48 (choose from 0.1, 0.2)" in found.message
    assert "list these in search-space" in found.message


def test_a_failure_of_the_batch_size_or_of_another_kind_is_not_told_as_one_of_the_hyperparameters():
    row = [failed(1, 128, 0.3), failed(2, 110, 0.2)]
    assert settings_that_fail(history(*row, failed(3, 100))) == []
    assert settings_that_fail(history(*row, failed(3, 100, 0.4, "exit code 1: no space"))) == []


def test_memory_that_bounds_the_answer_is_said_with_what_lifts_the_bound():
    larger = [replace(works(n, size), outcome=Outcome.OUT_OF_MEMORY) for n, size in ((1, 512), (2, 360))]
    (found,) = sizes_without_memory(history(*larger))
    assert "batch size 360 ran out of memory (trial 2), so batches from 360 on are left out" in found.message
    assert "autotuner.dev/micro-batch-size" in found.message
    assert sizes_without_memory(history(works(1, 512))) == []
    changed = spec(batch_size="16..1024").model_copy(update={"template": "new"})
    of_old = [replace(t, template="old/x") for t in larger]
    assert sizes_without_memory(History.of(changed, [BASELINE, *of_old])) == []
    micro = History.of(spec(batch_size="16..1024", micro_batch_size="8..32"), [BASELINE, *larger])
    assert sizes_without_memory(micro) == []


def test_failures_whose_logs_end_alike_are_told_apart_by_their_errors():
    """PyTorch, Hydra and shells print the same lines below each error."""
    ends = "; its log ends:\n{}\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."
    batch = "exit code 1: RuntimeError: CUDA error: device-side assert triggered" + ends
    rate = "exit code 1: ValueError: the learning rate is too large" + ends
    found = failing_sizes(history(failed(1, 128, 0.1, batch), failed(2, 64, 0.9, rate)))
    assert ([t.number for t in found.trials], found.bound) == ([1], 128)
    (warning,) = sizes_that_fail(history(failed(1, 128, 0.1, batch), failed(2, 64, 0.9, rate)))
    assert "Trial 1: RuntimeError: CUDA error: device-side assert triggered. To try" in warning.message


SILENT = "exit code 139 (SIGSEGV); its log ends:\nepoch {} loss 0.1"
ILLEGAL = "exit code 1: RuntimeError: CUDA error: an illegal memory access was encountered"


@pytest.mark.parametrize("crash", [SILENT, ILLEGAL, "exit code 139 (SIGSEGV): the log is empty"])
def test_one_crash_of_native_code_may_be_a_chance_and_bounds_nothing(crash):
    assert failing_sizes(history(failed(1, 128, 0.1, crash))).trials == ()
    found = failing_sizes(history(failed(1, 128, 0.1, crash), failed(2, 256, 0.9, crash)))
    assert ([t.number for t in found.trials], found.bound) == ([1, 2], 128)


def test_an_address_in_an_error_does_not_make_it_another_one():
    error = "exit code 1: TypeError: cannot split <data.Batch object at 0x7f{:x}{}>"
    found = failing_sizes(history(failed(1, 171, 0.1, error), failed(2, 160, 0.9, error)))
    assert ([t.number for t in found.trials], found.bound) == ([1, 2], 160)


@pytest.mark.parametrize(
    "message",
    [
        "init container fetch of pod t-master-0: exit code 1: fatal: repository not found",
        "initializer dataset-initializer of pod t-0: exit code 1: KeyError: 'split'",
        "pod t-0: Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 9Gi.",
        "pod t-master-0: DeadlineExceeded: Pod was active on the node longer than the specified deadline",
        "pod t-master-0: OOMKilled in init container fetch: raise the memory limit of that container",
    ],
)
def test_what_fails_before_a_training_or_exceeds_a_limit_of_its_pod_is_no_fault_of_a_setting(message):
    trials = [failed(n, size, 0.1 * n, message) for n, size in ((1, 128), (2, 160), (3, 192))]
    seen = history(*trials, works(4, 64, 0.3))
    assert failing_sizes(seen).trials == ()
    assert settings_that_fail(seen) == []
    assert not any(has_failed(seen, trial) for trial in trials)
