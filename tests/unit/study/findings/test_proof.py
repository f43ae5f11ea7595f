"""Proof that trials train what they are asked to, and no false alarms."""

from __future__ import annotations

import math
import random
import struct
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.study.finding import Reason
from autotuner.study.findings.proof import batch_not_trained, findings, identical_runs
from autotuner.study.findings.reported_batch import batch_doubts
from autotuner.study.findings.resumed import resumed_runs, unsettled_runs
from autotuner.trial import Measurement, Outcome, Purpose
from tests.builders import NOON, suggestion, trial

STOPPED = Outcome.MISSED


def run(
    number, values, batch_size=32, seed=None, steps=None, purpose=Purpose.SEARCH, extras=None, **parameters
):
    tried = suggestion(
        number,
        batch_size=batch_size,
        seed=number if seed is None else seed,
        parameters=parameters or {"learning_rate": 0.1},
        purpose=purpose,
    )
    steps = range(1, len(values) + 1) if steps is None else steps
    points = tuple(Measurement(float(s), v) for s, v in zip(steps, values, strict=True))
    begun = NOON + timedelta(hours=number)
    return trial(
        number,
        outcome=STOPPED,
        tried=tried,
        measurements=points,
        started_at=begun,
        ended_at=begun + timedelta(minutes=30),
        extras=extras or {},
    )


def learner(generator, points=10, noise=0.01, speed=1.0, best=0.95, start=0.1, digits=None, samples=None):
    """Return an accuracy curve with noise, written with some digits or counted on some samples."""
    values = []
    for step in range(1, points + 1):
        value = start + (best - start) * (1 - math.exp(-speed * step / 3)) + generator.gauss(0, noise)
        value = min(1.0, max(0.0, value))
        if samples is not None:
            value = round(value * samples) / samples
        values.append(value if digits is None else round(value, digits))
    return values


CURVE = learner(random.Random(1), points=12)
WRITTEN = {
    "all digits": CURVE,
    "six digits": [round(v, 6) for v in CURVE],
    "four digits": [round(v, 4) for v in CURVE],
    "percent with two digits": [round(100 * v, 2) for v in CURVE],
    "fractions of 360 samples": [round(v * 360) / 360 for v in CURVE],
    "fractions of 360 samples, four digits": [round(round(v * 360) / 360, 4) for v in CURVE],
    "a loss": [round(2.3 - v, 4) for v in CURVE],
}


def test_a_coarse_curve_that_is_the_same_at_batch_sizes_far_apart_is_not_wired():
    # 597 samples, of which the curve passes 104; every seed differs, too.
    values = [round(n / 597, 4) for n in (472, 533, 563, 571, 575, 575, 576, 575)]
    runs = [run(i, values, batch_size=size) for i, size in enumerate([32, 64, 128, 256])]
    assert identical_runs(runs[:3]) == []
    assert [found.reason for found in identical_runs(runs)] == [Reason.NOT_WIRED]
    assert identical_runs([*runs[:3], run(3, [*values[:3], 0.9548, *values[4:]], batch_size=256)]) == []


@pytest.mark.parametrize("samples", [10, 30, 100, 360])
@pytest.mark.parametrize("noise", [0.001, 0.01])
def test_equal_learners_with_a_coarse_metric_raise_no_alarm(samples, noise):
    # The noise is less than in any real training, and the batch size matters as little as in few.
    for seed in range(100):
        generator = random.Random(seed)
        speed = generator.choice([0.3, 1.0, 10.0])
        runs = []
        for i in range(6):
            values = learner(generator, noise=noise, samples=samples, speed=speed * 2 ** (-i / 5))
            runs.append(run(i, values, batch_size=32 * 2**i))
        assert identical_runs(runs) == []


@pytest.mark.parametrize("values", WRITTEN.values(), ids=WRITTEN.keys())
def test_different_batch_sizes_with_one_curve_are_not_wired(values):
    (found,) = identical_runs([run(i, values, batch_size=32 * 2**i) for i in range(3)])
    assert found.reason is Reason.NOT_WIRED
    assert found.trials == (0, 1, 2)
    assert found.names == ("batch_size",)
    assert "32, 64" in found.message
    assert "$(AUTOTUNER_BATCH_SIZE)" in found.message


def test_a_stopped_run_counts_as_far_as_it_went():
    runs = [run(0, CURVE), run(1, CURVE[:5], batch_size=64)]
    assert [f.reason for f in identical_runs(runs)] == [Reason.NOT_WIRED]


def test_a_hyperparameter_without_effect_is_named():
    runs = [run(i, CURVE, learning_rate=0.1, weight_decay=10.0**-i) for i in range(3)]
    assert identical_runs(runs)[0].names == ("weight_decay",)


def test_seeds_without_effect_are_a_warning():
    (found,) = identical_runs([run(i, CURVE) for i in range(3)])
    assert found.reason is Reason.SEED_NOT_USED
    assert "AUTOTUNER_SEED" in found.message


def test_seeds_without_effect_are_a_warning_for_a_metric_of_a_thousand_samples_too():
    # The curve passes a hundred levels, as most do after the first epoch.
    values = [0.639, 0.703, 0.694, 0.707, 0.711, 0.721, 0.71, 0.728, 0.719, 0.74]
    runs = [run(i, values) for i in range(4)]
    assert [found.reason for found in identical_runs(runs)] == [Reason.SEED_NOT_USED]
    assert identical_runs(runs[:2]) == []
    assert identical_runs([run(i, [0.61, 0.72, 0.74, 0.74, 0.74]) for i in range(4)]) == []


@pytest.mark.parametrize("samples", [10, 30, 100, 360, 1000])
def test_runs_of_one_setting_with_a_coarse_metric_raise_no_alarm(samples):
    generator = random.Random(samples)
    for _ in range(50):
        runs = [run(i, learner(generator, noise=0.002, samples=samples)) for i in range(4)]
        assert identical_runs(runs) == []


def test_a_retry_with_its_own_seed_repeats_a_run_by_right():
    assert identical_runs([run(0, CURVE, seed=7), run(1, CURVE, seed=7)]) == []


@pytest.mark.parametrize(("value", "enough"), [(0.91347218374659, 16), (0.913472, 32)])
def test_single_measurements_need_several_witnesses_and_the_baseline(value, enough):
    def reasons(count, purpose):
        runs = [run(i, [value], batch_size=32 * (i + 1), purpose=Purpose.SEARCH) for i in range(1, count)]
        return [f.reason for f in identical_runs([run(0, [value], purpose=purpose), *runs])]

    assert reasons(3, Purpose.BASELINE) == []
    assert reasons(enough, Purpose.SEARCH) == []
    assert reasons(enough, Purpose.BASELINE) == [Reason.NOT_WIRED]


@pytest.mark.parametrize(
    "values",
    [
        [0.1] * 10,
        [0.1135] * 10,
        [2.302585] * 10,
        [0.5, 1.0, 1.0, 1.0],
        [0.98, 0.99, 1.0, 1.0, 1.0],
        [0.0, 0.0, 0.0],
        [50.0, 100.0, 100.0, 100.0],
        [0.8, 0.9, 0.95, 0.96, 0.97],
    ],
)
def test_what_saturates_or_learns_nothing_proves_nothing(values):
    runs = [
        run(i, values, batch_size=32 * 2 ** (i % 2), learning_rate=0.1, weight_decay=0.1**i) for i in range(2)
    ]
    runs[0] = run(0, values, purpose=Purpose.BASELINE)
    assert identical_runs(runs) == []


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    digits=st.sampled_from([2, 3, 4, 6, None]),
    samples=st.sampled_from([50, 100, 360, 1000, 10_000, None]),
    noise=st.sampled_from([0.002, 0.01, 0.05]),
    points=st.sampled_from([1, 2, 3, 5, 10, 30]),
    alike=st.booleans(),
)
def test_learners_with_noise_are_never_suspected(seed, digits, samples, noise, points, alike):
    generator = random.Random(seed)
    runs = []
    for number in range(40):
        batch = 32 * 2 ** generator.randrange(8)
        values = learner(
            generator,
            points=max(1, points - generator.randrange(3)),
            noise=noise,
            speed=(32 / batch) ** 0.2 if alike else generator.uniform(0.1, 6),
            best=0.95 if alike else generator.uniform(0.2, 1.0),
            digits=digits,
            samples=samples,
        )
        purpose = Purpose.BASELINE if number == 0 else Purpose.SEARCH
        runs.append(run(number, values, batch_size=batch, purpose=purpose, learning_rate=generator.random()))
    assert findings(runs, 1) == ()
    if digits is None:
        single = [[struct.unpack("f", struct.pack("f", m.value))[0] for m in r.measurements] for r in runs]
        assert identical_runs([run(i, values) for i, values in enumerate(single[:5])]) == []
    losses = [tuple(Measurement(m.step, 1 - m.value) for m in r.measurements) for r in runs[:5]]
    assert findings([replace(r, measurements=m) for r, m in zip(runs, losses, strict=False)], -1) == ()
    if alike:  # runs of one setting differ by their noise alone
        same = [learner(generator, points=points, noise=noise, digits=digits, samples=samples) for _ in runs]
        assert resumed_runs([run(number, values) for number, values in enumerate(same)], 1) == []


def fresh(count=5, noise=0.01):
    generator = random.Random(3)
    return [run(i, learner(generator, noise=noise), batch_size=32 * 2**i) for i in range(count)]


def test_a_run_that_goes_on_counting_steps_is_resumed():
    runs = [*fresh(2), run(2, [0.95, 0.951, 0.952], steps=[11, 12, 13], batch_size=128)]
    (found,) = resumed_runs(runs, 1)
    assert (found.reason, found.trials, found.continues) == (Reason.RESUMED, (2,), 1)
    assert "AUTOTUNER_OUTPUT_DIR" in found.message


def test_a_run_that_begins_with_anothers_last_value_is_resumed():
    runs = fresh()
    last = runs[-1].measurements[-1].value
    (found,) = resumed_runs([*runs, run(5, [last, last + 0.001, last - 0.002], batch_size=1024)], 1)
    assert (found.trials, found.reason) == ((5,), Reason.RESUMED)


def test_a_script_that_always_resumes_is_found_at_once():
    runs = [run(0, CURVE), *(run(i, [v + i / 1e4 for v in CURVE[-4:]], batch_size=32 * 2**i) for i in (1, 2))]
    assert [f.trials for f in resumed_runs(runs, 1)] == [(1,), (2,)]


def test_a_script_that_evaluates_a_finished_checkpoint_again_is_found():
    curve = [round(v, 5) for v in CURVE]
    runs = [run(0, curve), *(run(i, [curve[-1]], batch_size=32 * 2**i) for i in (1, 2, 3))]
    found = [(f.reason, f.trials, f.continues) for f in resumed_runs(runs, 1)]
    assert found == [(Reason.RESUMED, (i,), i - 1) for i in (1, 2, 3)]


def test_the_confirmations_that_find_the_finished_checkpoint_of_their_setting_are_not_counted():
    # Each setting has a folder. The check between them has another, and a much larger batch was tried before.
    curve = [round(v, 5) for v in CURVE]
    check = run(2, [round(v - 0.0123, 5) for v in curve], batch_size=256, learning_rate=0.08)
    again = [run(i, [curve[-1]], batch_size=256) for i in (3, 4)]
    runs = [run(0, [0.9 * v for v in curve], batch_size=4096), run(1, curve, batch_size=256), check, *again]
    assert [(f.trials, f.continues) for f in resumed_runs(runs, 1)] == [((3,), 1), ((4,), 3)]


def test_epochs_go_on_counting_however_much_larger_another_batch_was():
    runs = [run(0, CURVE), run(1, CURVE[:-1], batch_size=2048), run(2, [CURVE[-1] + 0.001], steps=[12])]
    assert [f.trials for f in resumed_runs([replace(r, unit="epoch") for r in runs], 1)] == [(2,)]


@pytest.mark.parametrize(
    ("curve", "value"),
    [
        ([round(v, 5) for v in CURVE], round(CURVE[-1], 5) + 0.001),
        ([round(v, 2) for v in CURVE], round(CURVE[-1], 2)),
    ],
    ids=["another value", "one of few values"],
)
def test_a_large_batch_that_is_evaluated_once_is_not_resumed(curve, value):
    assert resumed_runs([run(0, curve), run(1, [value], batch_size=512)], 1) == []


@pytest.mark.parametrize(
    ("scale", "value", "sign"),
    [(lambda v: v, 1.0, 1), (lambda v: 100 * v, 100.0, 1), (lambda v: 1 - v, 0.0, -1)],
    ids=["accuracy", "percent", "error"],
)
@pytest.mark.parametrize("points", [1, 12])
def test_a_run_that_is_perfect_from_the_beginning_is_evaluated_on_nothing(scale, value, sign, points):
    runs = [run(i, [scale(v + i / 1000) for v in CURVE], batch_size=32 * 2**i) for i in range(2)]
    empty = [run(i, [value] * points, batch_size=512 * i) for i in (2, 3)]
    found = resumed_runs([*runs, *empty], sign)
    assert [(f.reason, f.trials) for f in found] == [(Reason.EVALUATES_NOTHING, (i,)) for i in (2, 3)]
    assert "evaluated on no samples" in found[0].message


@pytest.mark.parametrize(
    ("values", "batch_size", "perfect"),
    [
        ([1.0] * 12, 512, True),
        ([1.0] * 12, 16, False),
        ([0.99, *[1.0] * 11], 512, False),
    ],
    ids=["other runs are perfect, too", "a smaller batch", "not from the beginning"],
)
def test_an_easy_task_is_evaluated_on_something(values, batch_size, perfect):
    own = [*CURVE[:-1], 1.0] if perfect else CURVE
    runs = [run(0, own), run(1, values, batch_size=batch_size)]
    assert Reason.EVALUATES_NOTHING not in [f.reason for f in resumed_runs(runs, 1)]


def test_a_chain_of_resumed_runs_is_found():
    runs = [run(0, CURVE)]
    for i in (1, 2):
        steps = range(12 * i + 1, 12 * i + 13)
        runs.append(run(i, [CURVE[-1] + j / 1e4 for j in range(12)], steps=steps, batch_size=32 * 2**i))
    assert [(f.trials, f.continues) for f in resumed_runs(runs, 1)] == [((1,), 0), ((2,), 1)]


def test_a_run_that_goes_on_long_after_the_last_known_value_of_a_stopped_run_is_resumed():
    # A run of a few milliseconds an epoch trains on until it is stopped; its checkpoint is of a later epoch.
    shown = {0: range(1, 13), 1: range(13, 20), 2: range(25, 30), 3: range(37, 49)}
    batches = (32, 64, 128, 32)  # the last one is a retry of the job's own setting
    runs = [
        run(i, [CURVE[s - 1] if s <= 12 else CURVE[-1] - s / 1e4 for s in steps], batches[i], steps=steps)
        for i, steps in shown.items()
    ]
    runs = [replace(r, unit="epoch") for r in runs]
    assert [(f.trials, f.continues) for f in resumed_runs(runs, 1)] == [((1,), 0), ((2,), 1), ((3,), 2)]


def test_one_run_that_begins_late_for_another_reason_does_not_hide_the_next_that_has_resumed():
    runs = [
        run(0, CURVE),
        run(1, CURVE[4:8], 64, steps=range(5, 9)),
        run(2, [CURVE[-1] + j / 1e4 for j in range(3)], 128, steps=range(13, 16)),
    ]
    assert [f.trials for f in resumed_runs(runs, 1)] == [(2,)]


def test_a_run_that_learns_on_from_another_of_its_setting_is_resumed_though_it_counts_from_one():
    runs = [
        run(0, [0.65, 0.77, 0.85, 0.89]),
        run(1, [0.92, 0.93, 0.944, 0.948]),
        run(2, [0.953, 0.959, 0.96]),
    ]
    assert [(f.trials, f.continues) for f in resumed_runs(runs, 1)] == [((1,), 0), ((2,), 1)]


def test_two_fresh_runs_of_one_setting_have_not_resumed():
    generator = random.Random(5)
    assert resumed_runs([run(i, learner(generator, noise=0.03)) for i in range(20)], 1) == []


FIRST = [0.47, 0.556, 0.624, 0.687, 0.701, 0.717, 0.714, 0.71, 0.71, 0.721]
"""A run at a large batch, whose job's own run begins as high as this one ends."""


@pytest.mark.parametrize(
    "values", [[0.722, 0.718, 0.722, 0.718], [0.721]], ids=["trains on", "has no epoch left"]
)
def test_a_confirmation_that_finds_the_checkpoint_of_its_setting_is_resumed_where_other_settings_begin_high(
    values,
):
    runs = [run(0, [0.695, 0.706, 0.745, 0.762]), run(1, FIRST, batch_size=1024)]
    runs.append(run(2, values, batch_size=1024))
    assert [(f.trials, f.continues) for f in resumed_runs(runs, 1)] == [((2,), 1)]
    other = replace(runs[2], suggestion=replace(runs[2].suggestion, batch_size=512))
    assert resumed_runs([*runs[:2], other], 1) == []
    running = replace(runs[2], measurements=runs[2].measurements[:1], outcome=None)
    assert (resumed_runs([*runs[:2], running], 1), unsettled_runs([*runs[:2], running], 1)) == ([], [2])


@pytest.mark.parametrize(
    "values",
    [
        [0.61, 0.65, 0.69, 0.7],  # learns
        [0.722, 0.55, 0.65, 0.7],  # was lucky once
    ],
)
def test_a_fresh_confirmation_is_not_resumed(values):
    runs = [run(0, [0.695, 0.706, 0.745, 0.762]), run(1, FIRST, batch_size=1024)]
    assert resumed_runs([*runs, run(2, values, batch_size=1024)], 1) == []


def test_a_setting_that_once_began_high_may_do_so_again():
    unstable = [0.1, *[0.7] * 9]
    noisy = [0.68, 0.71, 0.66, 0.7, 0.73, 0.69, 0.74, 0.7, 0.75, 0.72]
    for values in (unstable, noisy):
        assert resumed_runs([run(0, FIRST), run(1, values, 1024), run(2, [0.75] * 4, 1024)], 1) == []


def test_a_run_beside_the_one_that_it_resembles_has_not_resumed_it():
    runs = fresh()
    last = runs[-1].measurements[-1].value
    other = run(5, [last, last + 0.001, last - 0.002], batch_size=1024)
    assert resumed_runs([*runs, replace(other, started_at=NOON)], 1) == []


def test_a_lower_loss_is_better():
    runs = [
        run(r.number, [1 - m.value for m in r.measurements], batch_size=32 * 2**r.number) for r in fresh()
    ]
    last = runs[-1].measurements[-1].value
    assert [f.trials for f in resumed_runs([*runs, run(5, [last] * 3)], -1)] == [(5,)]
    assert resumed_runs(runs, -1) == []


def test_a_script_that_begins_to_validate_late_is_not_resumed():
    values = learner(random.Random(4))
    runs = [
        run(i, [v + i / 100 for v in values], steps=range(20, 30), batch_size=32 * 2**i) for i in range(4)
    ]
    assert resumed_runs(runs, 1) == []


def test_a_small_batch_that_counts_more_steps_an_epoch_is_not_resumed():
    runs = []
    for number, batch in enumerate([8192, 4096, 256]):
        values = learner(random.Random(number))
        runs.append(run(number, values, steps=[e * 50_000 // batch for e in range(1, 11)], batch_size=batch))
    assert resumed_runs(runs, 1) == []


def test_a_fast_learner_is_not_resumed():
    runs = [*fresh(), run(5, [0.8, 0.93, 0.96, 0.97], batch_size=32, learning_rate=1.0)]
    assert resumed_runs(runs, 1) == []


def test_the_reported_batch_must_be_the_one_asked_for():
    (found,) = batch_doubts([run(0, [0.5], batch_size=256, extras={"batch_size": 32.0})])
    assert found.reason is Reason.NOT_WIRED
    assert "256" in found.message
    assert "32" in found.message
    assert batch_doubts([run(0, [0.5], batch_size=256, extras={"batch_size": 256.0})]) == []


def test_throughput_in_samples_over_that_in_steps_is_the_batch():
    extras = {"samples_per_second": 3200.0, "steps_per_second": 100.0}
    assert batch_doubts([run(0, [0.5], batch_size=32, extras=extras)]) == []
    assert len(batch_doubts([run(0, [0.5], batch_size=256, extras=extras)])) == 1


@pytest.mark.parametrize(("steps", "count"), [([400, 400], 1), ([400, 100], 0), ([400, 101], 0)])
def test_the_steps_of_an_epoch_must_fall_as_the_batch_grows(steps, count):
    runs = [run(i, [0.5], batch_size=32 * 4**i, extras={"steps_per_epoch": s}) for i, s in enumerate(steps)]
    assert len(batch_doubts(runs)) == count


def test_no_runs_raise_no_doubt():
    assert findings([], 1) == ()
    assert findings([trial(0, values=())], 1) == ()
    assert findings([trial(0, values=(float("nan"), float("inf")))], 1) == ()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.tuples(st.floats(), st.floats()), max_size=6), min_size=1, max_size=6))
def test_whatever_was_measured_raises_no_error(curves):
    runs = [
        run(i, [v for _, v in curve], steps=[s for s, _ in curve], batch_size=32 * 2**i)
        for i, curve in enumerate(curves)
    ]
    findings(runs, 1)
    findings([*runs, *(replace(r, suggestion=replace(r.suggestion, number=9)) for r in runs[:1])], -1)


def test_a_thousand_runs_cost_little():
    generator = random.Random(5)
    runs = [run(i, learner(generator, points=30), batch_size=32 + i) for i in range(500)]
    runs += [run(i, CURVE, batch_size=32 + i) for i in range(500, 1000)]
    started = time.process_time()
    assert Reason.NOT_WIRED in {finding.reason for finding in findings(runs, 1)}
    assert time.process_time() - started < 8


def repeated_at_a_smaller_rate(values, outcome):
    """Return what is found in a run and its repetition with a smaller learning rate and these values."""
    tried = suggestion(1, batch_size=128, parameters={"learning_rate": 0.4, "momentum": 0.9})
    half = {"learning_rate": 0.2, "momentum": 0.9}
    check = replace(tried, number=2, parameters=half, purpose=Purpose.CHECK)
    original = trial(1, (0.412346, 0.654179, 0.801283, 0.903417), tried=tried)
    found = findings([original, trial(2, values, outcome, check)], 1)
    return [f for f in found if f.reason is Reason.RATE_NOT_USED]


def test_a_run_that_is_the_same_with_a_smaller_learning_rate_is_told():
    (found,) = repeated_at_a_smaller_rate((0.412346, 0.654179, 0.801283), None)
    assert "trial 2 with learning_rate 0.2 measured the same" in found.message
    assert "as trial 1 with 0.4" in found.message
    assert "another learning_rate than it is given" in found.message
    assert found.names == ("learning_rate",)


@pytest.mark.parametrize(
    ("values", "outcome"), [((0.412347,), Outcome.DOMINATED), ((0.412346,), None), ((), None)]
)
def test_a_learning_rate_that_differs_or_may_still_do_so_is_not_told(values, outcome):
    assert repeated_at_a_smaller_rate(values, outcome) == []


def test_coarse_checks_that_are_all_the_same_prove_together_that_the_batch_is_not_trained():
    """With 50 samples, one may be the same by chance."""
    coarse = (0.36, 0.56, 0.68, 0.76, 0.8, 0.84, 0.86, 0.88, 0.9, 0.92)
    runs = [run(0, coarse, 1024), run(1, [v + 0.02 for v in coarse], 2048)]
    checks = [
        run(2, coarse, 512, seed=0, purpose=Purpose.CHECK),
        run(3, coarse, 861, seed=0, purpose=Purpose.CHECK),
        run(4, [v + 0.02 for v in coarse], 1024, seed=1, purpose=Purpose.CHECK),
    ]
    reasons = [{f.reason for f in batch_not_trained([*runs, *checks[:n]])} for n in range(4)]
    warned = {Reason.BATCH_NOT_FOLLOWED}
    assert reasons == [set(), warned, warned, {Reason.NOT_WIRED}]


def test_a_coarse_check_with_the_losses_of_its_original_proves_that_the_batch_is_not_trained():
    """A script that halves its batch until it fits into memory trains 128 for 2048 and for 1024."""
    values = (0.686, 0.703, 0.693, 0.728, 0.735, 0.707, 0.727, 0.729, 0.735, 0.743)
    losses = (0.8165, 0.7822, 0.7862, 0.7192, 0.7191, 0.7347, 0.6989, 0.6912, 0.6877, 0.6801)
    original = replace(run(0, values, 2048), losses=losses)
    check = replace(run(1, values, 1024, seed=0, purpose=Purpose.CHECK), losses=losses)
    assert [f.reason for f in batch_not_trained([original, check])] == [Reason.NOT_WIRED]
    for others in ((), values, (*losses[:-1], 0.7802), [round(loss, 2) for loss in losses[:4]]):
        # None, those that are the metric, one that differs, and some with few digits.
        shown = [replace(original, losses=tuple(others)), replace(check, losses=tuple(others))]
        shown[0] = replace(shown[0], losses=losses) if 0.7802 in others else shown[0]
        assert [f.reason for f in batch_not_trained(shown)] == [Reason.BATCH_NOT_FOLLOWED]


def test_the_same_check_again_proves_no_more():
    """A script that ignores its seed measures the same in every run of a setting."""
    coarse = (0.36, 0.56, 0.68, 0.76, 0.8, 0.84, 0.86, 0.88, 0.9, 0.92)
    runs = [run(number, coarse, 1024) for number in range(3)]
    checks = [run(3 + n, coarse, 861, seed=n, purpose=Purpose.CHECK) for n in range(3)]
    assert {f.reason for f in batch_not_trained([*runs, *checks])} == {Reason.BATCH_NOT_FOLLOWED}
