"""The first losses of a log: which lines have them, and when two runs differ."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from autotuner.study.finding import Reason
from autotuner.study.findings.batch_check import batch_checks, noise_of_seeds
from autotuner.study.findings.proof import batch_not_trained, findings
from autotuner.study.logs.log_reader import LogReader
from autotuner.study.logs.losses import KEPT, are_apart, are_close, differ
from autotuner.trial import Outcome, Purpose
from tests.builders import spec as spec_of
from tests.builders import suggestion, trial

LOSSES = tuple(round(2.3026 - 0.0137 * i, 4) for i in range(KEPT))


def losses_of(*lines):
    reader = LogReader(spec_of().target)
    reader.feed("".join(f"{line}\n" for line in lines))
    return reader.losses


@pytest.mark.parametrize(
    "line",
    [
        "iter 0: loss 2.3026, time 12.1ms",
        "Epoch: [3][100/391]\tTime 0.400 (0.512)\tLoss 2.3026 (2.4119)\tAcc@1 12.5 (11.7)",
        "{'loss': 2.3026, 'grad_norm': 1.75, 'learning_rate': 1e-05, 'epoch': 0.02}",
        '{"step": 10, "train_loss": 2.3026}',
        " iteration 10/ 500 | lm loss: 2.3026E+00 | loss scale: 65536.0 | grad norm: 1.003",
        "loss_scale: 65536.0 loss: 2.3026",
        "2026-11-28 10:00:00,123 - mmdet - INFO - Epoch [1][50/7330] lr: 1e-2, loss_cls: 2.3026, loss: 4.1",
        "train loss = tensor(2.3026, device='cuda:0')",
        "Train Loss: 2.3026",
        "EPOCH 1 LOSS 2.3026",
    ],
)
def test_a_loss_is_read(line):
    assert losses_of(line) == (2.3026,)


@pytest.mark.parametrize(
    "line",
    [
        "loss: 3",
        "loss: 0.0000",
        "loss: nan",
        "loss_scale: 65536.0",
        "loss weight: 0.125",
        "a glossary of 2.3026",
        "using CrossEntropyLoss()",
        "loss.py:123",
        " 25%|██▌       | 98/391 [00:10<00:30,  9.70it/s, loss=2.3026]",
        "Epoch 0:  25%|##5       | 98/391 [00:10<00:30,  9.70it/s, v_num=0, train_loss=2.3026]",
    ],
)
def test_what_is_no_loss_or_depends_on_the_time_is_not_read(line):
    assert losses_of(line) == ()


def test_the_first_losses_are_kept():
    assert losses_of(*(f"step {i} loss {3 - i / 1000:.4f}" for i in range(100))) == tuple(
        round(3 - i / 1000, 4) for i in range(KEPT)
    )


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (LOSSES, False),
        (LOSSES[:4], False),
        (LOSSES[::-1], False),  # processes print in any order
        ((*LOSSES[:2], *(v + 0.0001 for v in LOSSES[2:4])), False),
        (
            (LOSSES[0], *(v + 0.0001 for v in LOSSES[1:4])),
            True,
        ),  # the first may be that of an untrained model
        ((1.1, 1.2, 1.3), False),  # too few
    ],
)
def test_losses_differ_if_fewer_than_half_are_the_same(other, expected):
    assert differ(LOSSES, other) is expected


def check_of(values, losses, *, originals=(0.8123,), outcome=None, number=2):
    """Return a run with one value, and its check with half of its batch."""
    tried = suggestion(1, batch_size=128)
    original = trial(1, originals, Outcome.REACHED, tried, losses=LOSSES)
    half = replace(tried, number=number, batch_size=128 >> number - 1, purpose=Purpose.CHECK)
    return original, trial(number, values, outcome, half, losses=losses)


def test_a_check_is_over_where_its_losses_differ():
    (check,) = batch_checks(check_of((), (LOSSES[0], 2.2, 2.1, 2.0)))
    assert check.is_over
    assert check.differs


def test_the_losses_of_a_run_that_is_evaluated_early_do_not_decide():
    """The script may divide its loss by the batch size that it is given."""
    (check,) = batch_checks(check_of((), (2.2, 2.1, 2.0, 1.9), originals=(0.6, 0.7, 0.8123)))
    assert not check.differs


def test_equal_losses_alone_prove_nothing():
    """A script that accumulates gradients by itself prints those of its first micro-batches."""
    runs = check_of((), LOSSES)
    (check,) = batch_checks(runs)
    assert not check.is_over
    assert batch_not_trained(runs) == []


@pytest.mark.parametrize(
    ("losses", "expected"), [(LOSSES, Reason.NOT_WIRED), ((), Reason.BATCH_NOT_FOLLOWED)]
)
def test_equal_losses_and_the_same_value_at_the_end_are_not_wired(losses, expected):
    known = [trial(n, (round(0.8 + math.sin(n) / 50, 5),)) for n in range(10, 20)]
    runs = check_of((0.81234,), losses, originals=(0.81234,), outcome=Outcome.MISSED)
    assert {f.reason for f in batch_not_trained([*known, *runs])} == {expected}


def test_a_check_of_the_rate_ends_where_its_losses_show_nothing():
    original, check = check_of((), LOSSES)
    tried = replace(original.suggestion, parameters={"learning_rate": 0.4})
    smaller = replace(check.suggestion, batch_size=128, parameters={"learning_rate": 0.2})
    original, check = replace(original, suggestion=tried), replace(check, suggestion=smaller)
    (of_rate,) = batch_checks([original, check])
    assert of_rate.is_of_rate
    assert of_rate.is_over
    (early,) = batch_checks([original, replace(check, losses=LOSSES[:5])])
    assert not early.is_over


# First losses of real trainings: a batch, the same with an error of 1e-6 in each gradient, and a smaller one.
CONVOLUTION = (0.2871, 0.1105, 0.0661, 0.0927, 0.0382, 0.0511)
TRANSFORMER = (4.6887, 4.4568, 4.2071, 4.0024, 3.8409, 3.7011)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (TRANSFORMER, (4.6887, 4.4568, 4.207, 4.0026, 3.8402, 3.7055), True),
        (TRANSFORMER, (4.6887, 4.4721, 4.2203, 4.0101, 3.8502, 3.7122), False),
        (CONVOLUTION, (0.2871, 0.1106, 0.0661, 0.0925), True),
        (CONVOLUTION, (0.3071, 0.1006, 0.0811, 0.0727), False),
        (TRANSFORMER[:3], TRANSFORMER[:3], False),  # too few
        ([2.31, 2.3, 2.29, 2.28, 2.27], [2.31, 2.3, 2.29, 2.28, 2.27], False),  # too coarse
        ((0.6931,) * 8, (0.6931,) * 8, False),  # learns nothing yet
    ],
)
def test_the_first_losses_of_a_training_that_is_repeated_are_close(one, other, expected):
    assert are_close(one, other) is expected


@pytest.mark.parametrize("steps", [None, 2])
def test_a_check_whose_training_begins_like_its_originals_is_told(steps):
    """On GPUs only the digits differ."""
    tried = suggestion(1, batch_size=128, accumulation_steps=steps)
    original = trial(1, (0.61, 0.8123), Outcome.REACHED, tried, losses=TRANSFORMER)
    half = replace(tried, number=2, batch_size=64, purpose=Purpose.CHECK)
    check = trial(2, (0.6102,), Outcome.DOMINATED, half, losses=(4.6887, 4.4568, 4.207, 4.0026))
    told = [f.message for f in findings([original, check], 1) if f.reason is Reason.BATCH_NOT_FOLLOWED]
    assert ["(4.6887, 4.4568, 4.207, 4.0026; 4.6887, 4.4568, 4.2071, 4.0024)" in m for m in told] == (
        [True] if steps is None else []
    )


def begun(number, batch_size, losses, values=(0.61, 0.75, 0.8123), steps=1):
    """Return an ended run with a learning rate of its own."""
    rate = {"learning_rate": 0.1 + number}
    tried = suggestion(number, batch_size=batch_size, parameters=rate, accumulation_steps=steps)
    return trial(number, values, tried=tried, losses=losses)


CLOSE = tuple(loss + 0.0001 for loss in TRANSFORMER)
FIRST = begun(0, 32, TRANSFORMER)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([begun(1, 64, CLOSE), begun(2, 256, TRANSFORMER, (0.612, 0.74))], True),
        ([begun(1, 64, CLOSE)], False),
        ([begun(1, 64, CLOSE), begun(2, 128, CLOSE)], False),  # not far apart
        (
            [begun(1, 64, CLOSE), begun(2, 256, CLOSE, (0.55, 0.74))],
            False,
        ),  # accumulates, and prints micro-batches
        ([begun(1, 64, CLOSE), begun(2, 256, CLOSE, (0.61, 0.7))], False),  # after a stage of its own
        ([begun(1, 64, CLOSE), begun(2, 256, CLOSE), begun(3, 512, CONVOLUTION)], False),
        ([begun(1, 64, ()), begun(2, 256, ())], False),
        ([begun(1, 64, CLOSE), begun(2, 256, CLOSE, steps=4)], False),
    ],
)
def test_runs_that_all_begin_alike_at_batch_sizes_far_apart_are_not_wired(others, expected):
    found = [f for f in findings([FIRST, *others], 1) if f.reason is Reason.NOT_WIRED]
    assert bool(found) is expected
    assert all("begin alike (4.6887, 4.4568, 4.2071, 4.0024; " in f.message for f in found)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (TRANSFORMER, (4.6887, 4.4721, 4.2203, 4.0101, 3.8502, 3.7122), False),
        (TRANSFORMER, (4.6991, 4.4302, 4.2511, 4.0424), True),
        (TRANSFORMER, TRANSFORMER, False),
        (CONVOLUTION, (0.3071, 0.1006, 0.0811, 0.0727), True),
        (CONVOLUTION, (0.3071,), False),
        ((0.12, 0.11, 0.12, 0.13, 0.14), (0.13, 0.11, 0.12, 0.14), False),  # two digits
    ],
)
def test_the_first_losses_of_two_trainings_are_apart(one, other, expected):
    assert are_apart(one, other) is expected


CLOSE = (4.6887, 4.4568, 4.207, 4.0026)
APART = (4.6991, 4.4302, 4.2511, 4.0424)
CURVE = (0.51, 0.62, 0.71, 0.8123)
NEARLY = (0.512, 0.6178, 0.712)


def checked(values, losses, *, share=0.5, originals=CURVE, unit="epoch", outcome=None, **more):
    """Return a check of a run with these first values, and the reasons that it gives rise to."""
    tried = suggestion(1, batch_size=256, **more)
    original = trial(1, originals, Outcome.REACHED, tried, losses=TRANSFORMER if losses else (), unit=unit)
    smaller = replace(tried, number=2, batch_size=round(256 * share), purpose=Purpose.CHECK)
    runs = original, trial(2, values, outcome, smaller, losses=losses, unit=unit)
    (check,) = batch_checks(runs)
    return check, [f.reason for f in findings(runs, 1)]


@pytest.mark.parametrize("share", [0.5, 0.84])
def test_a_check_with_close_losses_and_values_is_in_doubt_after_three_values(share):
    """On GPUs only the digits differ."""
    reasons = [checked(NEARLY[:count], CLOSE, share=share)[1] for count in (0, 1, 2, 3)]
    assert reasons == [[], *[[Reason.BATCH_NOT_FOLLOWED]] * 2, [Reason.IN_DOUBT]]
    assert [checked(NEARLY[:n], CLOSE, share=share)[0].is_over for n in range(4)] == [False] * 3 + [True]


def test_a_check_with_close_losses_whose_metric_differs_is_a_warning():
    """A script that accumulates gradients by itself may print the losses of its micro-batches."""
    check, reasons = checked((0.57,), CLOSE)
    assert check.is_over
    assert reasons == [Reason.BATCH_NOT_FOLLOWED]


def test_a_check_with_close_losses_is_in_doubt_where_a_run_has_one_value():
    """Most batches that meet the target end with nearly the same value."""
    check, reasons = checked((), CLOSE, originals=(0.8123,))
    assert (check.is_over, reasons) == (False, [])
    check, reasons = checked((0.79,), CLOSE, originals=(0.8123,))
    assert (check.is_over, reasons) == (True, [Reason.IN_DOUBT])


def test_half_the_batch_with_nearly_the_same_first_values_is_a_warning_where_no_losses_are_printed():
    checks = [checked(NEARLY[:count], ()) for count in range(4)]
    assert [check.is_over for check, _ in checks] == [False] * 3 + [True]
    assert [reasons for _, reasons in checks] == [[], [], [], [Reason.BATCH_NOT_FOLLOWED]]
    (warned,) = findings((checks[3][0].original, checks[3][0].trial), 1)
    assert (
        "the first values of trial 2 at batch size 128 are nearly those of trial 1 at 256" in warned.message
    )
    assert "(0.512, 0.6178, 0.712; 0.51, 0.62, 0.71)" in warned.message


@pytest.mark.parametrize(
    ("values", "outcome", "expected"),
    [
        ((0.51,), None, (False, Reason.BATCH_NOT_FOLLOWED)),
        (CURVE[:3], None, (True, Reason.BATCH_NOT_FOLLOWED)),
        ((0.51, 0.6189), None, (True, Reason.IN_DOUBT)),
        ((0.51, 0.6189), Outcome.LOST, (None, Reason.BATCH_NOT_FOLLOWED)),
    ],
)
def test_a_control_whose_digits_differ_turns_the_warning_of_near_values_into_a_doubt(
    values, outcome, expected
):
    check, _ = checked(NEARLY, (), outcome=Outcome.DOMINATED)
    repeated = replace(check.original.suggestion, number=3, purpose=Purpose.CHECK)
    runs = check.original, check.trial, trial(3, values, outcome, repeated, unit="epoch")
    is_over = next((c.is_over for c in batch_checks(runs) if c.is_control), None)
    (found,) = findings(runs, 1)
    assert (is_over, found.reason) == expected
    said = "trial 3 repeats trial 1 unchanged and measured 0.51, 0.6189, so the training is not deterministic"
    assert (said in found.message) is (found.reason is Reason.IN_DOUBT)


@pytest.mark.parametrize(
    ("value", "repeated", "is_found"),
    [
        (0.56, 0.53, True),
        (0.61, 0.53, False),  # further away than the other seeds
        (0.56, 0.511, False),  # the training is nearly deterministic
        (0.56, 0.51, False),
    ],
)
def test_half_the_batch_within_the_range_of_other_seeds_is_warned_of_where_a_control_differs(
    value, repeated, is_found
):
    check, _ = checked((value,), (), outcome=Outcome.DOMINATED)
    assert check.shows_effect
    tried = check.original.suggestion
    seeds = [
        trial(3 + n, (first, *CURVE[1:]), tried=replace(tried, number=3 + n, seed=90 + n), unit="epoch")
        for n, first in enumerate((0.49, 0.55))
    ]
    control = replace(tried, number=5, purpose=Purpose.CHECK)
    runs = [check.original, check.trial, *seeds]
    assert check.is_within(noise_of_seeds(runs)) is (value < 0.6)
    assert findings(runs, 1) == ()
    found = findings([*runs, trial(5, (repeated,), Outcome.DOMINATED, control, unit="epoch")], 1)
    assert [f.reason for f in found] == [Reason.BATCH_NOT_FOLLOWED] * is_found
    said = (
        "trial 1 begins with 0.51, trial 2 with half the batch with 0.56, and trial 5, which repeats trial 1"
    )
    assert all(said in f.message for f in found)


@pytest.mark.parametrize(("reads", "expected"), [("val_acc: 0.51", [Reason.BATCH_NOT_FOLLOWED]), ("", [])])
def test_a_log_without_epochs_or_steps_has_a_value_an_epoch(reads, expected):
    check, _ = checked(NEARLY, (), unit="")
    runs = replace(check.original, reads=reads), replace(check.trial, reads=reads)
    assert [f.reason for f in findings(runs, 1)] == expected


def test_a_thinned_curve_is_compared_where_it_has_steps():
    check, _ = checked((0.512, 0.6178, 0.712, 0.8121, 0.8523), (), originals=(*CURVE, 0.8523, 0.8611))
    kept = tuple(m for m in check.original.measurements if m.step != 2.0)
    thinned = replace(check.original, measurements=kept)
    (warned,) = findings((thinned, check.trial), 1)
    assert warned.reason is Reason.BATCH_NOT_FOLLOWED


def test_half_the_batch_is_warned_of_only_where_the_model_has_begun_to_learn():
    plateau = (0.1, 0.101, 0.1, 0.101, 0.51, 0.62, 0.71, 0.8123)
    alike = [checked((0.101, 0.1, 0.1, 0.1, 0.514)[:count], (), originals=plateau) for count in range(6)]
    assert [check.is_over for check, _ in alike] == [False] * 5 + [True]
    assert [reasons for _, reasons in alike] == [[]] * 5 + [[Reason.BATCH_NOT_FOLLOWED]]
    check, reasons = checked((0.101, 0.1, 0.1, 0.1, 0.614), (), originals=plateau)
    assert (check.is_over, reasons) == (True, [])


@pytest.mark.parametrize(
    "known",
    [
        {"values": (0.512, 0.6178, 0.73)},  # one is apart
        {"values": NEARLY, "losses": APART},
        {"values": NEARLY, "share": 0.84},  # which hardly changes the first values
        {"values": NEARLY, "unit": "step"},  # after as many updates
        {"values": (0.512, 0.8123), "originals": (0.51, 0.8123)},
    ],
)
def test_nearly_the_same_first_values_may_be_right(known):
    check, reasons = checked(**{"losses": (), **known})
    assert check.is_over
    assert reasons == []


def test_nearly_the_same_first_values_are_not_warned_of_where_the_batch_is_shown():
    check, _ = checked(NEARLY, ())
    reported = replace(check.original, extras={"batch_size": 256.0})
    assert findings((reported, check.trial), 1) == ()
    other = replace(check.original, suggestion=replace(check.original.suggestion, number=0, batch_size=32))
    longer = replace(other, loops=(800,)), replace(check.original, loops=(100,)), check.trial
    assert [f for f in findings(longer, 1) if f.reason is Reason.BATCH_NOT_FOLLOWED] == []


def test_the_losses_of_micro_batches_are_no_doubt():
    assert checked((0.512,), CLOSE, accumulation_steps=2)[1] == []


@pytest.mark.parametrize(("losses", "told"), [(CLOSE, True), (APART, False)])
def test_two_seeds_whose_trainings_begin_alike_are_told(losses, told):
    tried = suggestion(1, batch_size=256)
    one = trial(1, CURVE, tried=tried, losses=TRANSFORMER)
    other = trial(2, NEARLY, tried=replace(tried, number=2, seed=99), losses=losses)
    messages = [f.message for f in findings([one, other], 1) if f.reason is Reason.SEED_NOT_USED]
    assert ["trials 1 and 2 begin alike with different seeds (4.6887" in m for m in messages] == [True] * told
