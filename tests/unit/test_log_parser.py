"""Log lines become measurements, in whatever pieces they come."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.study.log_parser import MAX_LINE, MAX_MEASUREMENTS, LogParser, parse_line, thin
from autotuner.trial import Measurement


def parsed(*pieces: str, metric: str = "accuracy", pattern: str | None = None) -> tuple[Measurement, ...]:
    parser = LogParser(metric, pattern)
    for piece in pieces:
        parser.feed(piece)
    parser.close()
    return parser.measurements


@pytest.mark.parametrize(
    ("line", "step", "value"),
    [
        ("accuracy=0.93 epoch=3", 3, 0.93),
        ("accuracy: 0.93, step: 120", 120, 0.93),
        ('{"accuracy": 0.93, "step": 7}', 7, 0.93),
        ("{'eval_loss': 1.2, 'accuracy': 0.5, 'epoch': 2.0}", 2, 0.5),
        ('{"accuracy": "0.93"}', 1, 0.93),
        ("accuracy = 9.3e-1", 1, 0.93),
        ("Accuracy: .93", 1, 0.93),
        ("Epoch: 4 Accuracy: 1", 4, 1),
        ("2030-01-01 12:00:00 INFO accuracy=0.93. Next epoch", 1, 0.93),
        ("\x1b[32maccuracy\x1b[0m=\x1b[1m0.93\x1b[0m", 1, 0.93),
        ("accuracy=0.93% of all", 1, 0.93),
        ("accuracy=-1", 1, -1),
        ("accuracy=+1", 1, 1),
        ("accuracy=0.5 accuracy=0.6", 1, 0.5),
        ("accuracy=0.5 epoch=nan step=8", 8, 0.5),
        ("accuracy=0.5 epoch=1e999", 1, 0.5),
        ("Epoch 3 accuracy=0.5", 3, 0.5),
        ("Epoch 3/90, loss: 0.1, accuracy: 0.5", 3, 0.5),
        ("Epoch [3/90], Step [100/600], accuracy: 0.5", 3, 0.5),
        ("Epoch: [3][10/5005] accuracy: 0.5", 3, 0.5),
        ("Epoch 3 done in 12.5 s, step: 400, accuracy: 0.5", 400, 0.5),
        ("Epoch 2.5 accuracy=0.5", 1, 0.5),
        ("Epoch " + "9" * 400 + " accuracy=0.5", 1, 0.5),
        ("epoch=30% accuracy=0.5", 1, 0.5),
        ("\u2502 accuracy  \u2502        0.953125       \u2502", 1, 0.953125),
    ],
)
def test_a_line_that_carries_the_metric_is_a_measurement(line, step, value):
    assert parsed(line) == (Measurement(step, value),)


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "Infinity", "1e999"])
def test_a_value_that_is_no_number_is_kept_for_the_diverged_run_that_it_is(text):
    (measurement,) = parsed(f"accuracy={text}")
    assert not measurement.is_finite


@pytest.mark.parametrize(
    "line",
    [
        "",
        "accuracy",
        "accuracy=",
        "accuracy=high",
        "test_accuracy=0.9",
        "train/accuracy=0.9",
        "my.accuracy=0.9",
        "accuracy5=0.9",
        "accuracy=1.2.3",
        "accuracy=0x10",
        "accuracy=0.9abc",
        "accuracy" + " " * 9 + "=0.9",
        "accuracy -> 0.9",
        "accuracy=0.9" + "x" * MAX_LINE,
        "loss=0.3",
    ],
)
def test_a_line_that_does_not_is_none(line):
    assert parsed(line) == ()


def test_a_line_without_a_step_counts_as_the_next_one():
    assert [m.step for m in parsed("accuracy=1\nnoise\naccuracy=2\naccuracy=3\n")] == [1, 2, 3]


def test_steps_go_on_counting_when_a_long_run_is_thinned():
    count = MAX_MEASUREMENTS + 500
    steps = [m.step for m in parsed("".join(f"accuracy={i}\n" for i in range(count)))]
    assert len(steps) <= MAX_MEASUREMENTS
    assert steps == sorted(set(steps))
    assert steps[-1] == count


def test_progress_bars_write_their_lines_with_carriage_returns():
    assert [m.value for m in parsed("accuracy=0.1\raccuracy=0.2\raccuracy=0.3\r\n")] == [0.1, 0.2, 0.3]


def test_a_step_has_one_measurement_the_last():
    said = "Epoch 1 accuracy=0.1\rEpoch 1 accuracy=0.2\rEpoch 1 accuracy=0.3\nEpoch 2 accuracy=0.3\n"
    assert parsed(said) == (Measurement(1, 0.3), Measurement(2, 0.3))


# As Lightning wrote it through tqdm: an epoch goes on showing what the one before has measured, the end of
# its last batch included, until its own validation is done.
LIGHTNING = [
    "Epoch 0: 100%|##########| 16/16 [00:00<00:00, 52.37it/s, loss=0.237]",
    "Epoch 0: 100%|##########| 16/16 [00:00<00:00, 52.73it/s, loss=0.237, val_accuracy=0.906]",
    "Epoch 0:   0%|          | 0/16 [00:00<?, ?it/s, loss=0.237, val_accuracy=0.906]         ",
    "Epoch 1:   0%|          | 0/16 [00:00<?, ?it/s, loss=0.237, val_accuracy=0.906]",
    "Epoch 1:   6%|6         | 1/16 [00:00<00:00, 63.10it/s, loss=0.237, val_accuracy=0.906]",
    "Epoch 1: 100%|##########| 16/16 [00:00<00:00, 58.07it/s, loss=0.182, val_accuracy=0.906]",
    "Epoch 1: 100%|##########| 16/16 [00:00<00:00, 58.29it/s, loss=0.182, val_accuracy=0.969]",
    "Epoch 2:   6%|6         | 1/16 [00:00<00:00, 30.73it/s, loss=0.182, val_accuracy=0.969]",
    "Epoch 2: 100%|##########| 16/16 [00:00<00:00, 53.53it/s, loss=0.151, val_accuracy=0.969]",
]


def test_what_a_bar_still_shows_of_the_epoch_before_is_no_measurement():
    parser, steps = LogParser("val_accuracy"), []
    for line in LIGHTNING:
        parser.feed(line + "\r")
        steps.append(len(parser.measurements))
    assert steps == [0, 1, 1, 1, 1, 1, 2, 2, 2]
    # Had epoch 2 measured something else, it would have been shown: the end of the log settles it.
    parser.close()
    assert parser.measurements == (Measurement(0, 0.906), Measurement(1, 0.969), Measurement(2, 0.969))


def test_what_a_bar_repeats_counts_once_its_step_is_past():
    bar = "Epoch {}:  50%|#####     | 8/16 [00:00<00:00, 9.1it/s, accuracy={}]\r"
    told = parsed(bar.format(1, 0.5), bar.format(2, 0.5), bar.format(3, 0.5), bar.format(3, 0.7))
    assert told == (Measurement(1, 0.5), Measurement(2, 0.5), Measurement(3, 0.7))


def test_a_bar_without_an_epoch_is_at_its_own_count_and_the_next_one_goes_on_from_there():
    bar = " 30%|###   | {}/4 [00:01<00:03, 2.1it/s, accuracy={}]"
    first = "\r".join(bar.format(count, count / 10) for count in range(5))
    second = "\r".join(bar.format(count, count / 10 + 0.45) for count in range(5))
    told = parsed(first + "\n" + second + "\n")
    assert [m.step for m in told] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert told[4:6] == (Measurement(4, 0.45), Measurement(5, 0.55))


def test_the_bars_own_percentage_is_no_step():
    bar = "Epoch:  75%|#######5  | 3/4 [00:00<00:00, 2.1it/s, accuracy=0.5]"
    assert parsed(bar) == (Measurement(3, 0.5),)


def test_an_unfinished_line_says_nothing_yet():
    parser = LogParser("accuracy")
    parser.feed("accuracy=0.9")
    assert parser.measurements == ()
    parser.feed("3\n")
    assert parser.measurements == (Measurement(1, 0.93),)


def test_a_program_that_never_ends_its_line_takes_no_memory_and_is_heard_again_after_it():
    assert parsed(*(["x" * 10_000] * 20), "accuracy=0.1\n", "accuracy=0.9\n") == (Measurement(1, 0.9),)


def test_the_extras_of_the_sdk_keep_their_last_finite_value():
    parser = LogParser("accuracy")
    parser.feed("accuracy=1 noise_scale=10 samples_per_second=5\nnoise_scale=20\nnoise_scale=nan\n")
    assert parser.extras == {"noise_scale": 20, "samples_per_second": 5}


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [
        (r"top1\s+([0-9.]+)", "top1 0.75 top5 0.9", Measurement(1, 0.75)),
        (r"Acc@1 (?P<value>\S+) at (?P<step>\d+)", "Acc@1 75.9 at 40", Measurement(40.0, 75.9)),
        (r"(?P<step>\d+): (?P<value>\S+)", "7: nan", Measurement(7.0, math.nan)),
        (r"v (?P<value>\S+)(?: s (?P<step>\S+))?", "v 3", Measurement(1, 3.0)),
        (r"v (?P<value>\S+)(?: s (?P<step>\S+))?", "v 3 s soon", Measurement(1, 3.0)),
        (r"Acc@1 (\S+)", "Epoch: [3][10/50] Acc@1 75.9", Measurement(3.0, 75.9)),
        (r"v (\S*)", "v high", None),
        (r"v (\d+)?", "v ", None),
        (r"v (\d+)", "accuracy=0.9", None),
    ],
)
def test_a_pattern_of_the_users_own_is_taken_instead(pattern, line, expected):
    found = parse_line(line, "accuracy", pattern)
    # By text, for NaN is not equal to itself.
    assert repr(found) == repr(expected)


def test_a_pattern_that_would_hang_another_engine_takes_linear_time():
    assert parse_line("a" * MAX_LINE + "!", "accuracy", r"(a*)*b") is None


WORDS = st.sampled_from(
    [
        *(
            "accuracy",
            "=",
            ": ",
            "0.93",
            "1e-3",
            "nan",
            "\n",
            "\r",
            "\r\n",
            " ",
            "epoch",
            "Epoch 3",
            "| 2/4 [0",
            "step",
            "3",
            '"',
            "{",
            "}",
        ),
        *("\x1b[1m", "\x1b", "x" * 3000, "loss", "\0", "é", "\u2028", "٣", "-", ".", "noise_scale=2"),
    ]
)
LOGS = st.lists(WORDS | st.text(max_size=5), max_size=40).map("".join)


@given(LOGS, st.lists(st.integers(0, 4000), max_size=8))
def test_any_split_of_the_log_gives_the_same_measurements(log, cuts):
    places = sorted({0, len(log), *(cut for cut in cuts if cut < len(log))})
    pieces = [log[start:end] for start, end in pairwise(places)]
    whole, split = LogParser("accuracy"), LogParser("accuracy")
    whole.feed(log)
    for piece in pieces:
        split.feed(piece)
    for parser in (whole, split):
        parser.close()
    assert repr(split.measurements) == repr(whole.measurements)
    assert split.extras == whole.extras


@given(
    st.text(max_size=300), st.sampled_from([None, r"(\d+)", r"(?P<value>.*)", r"(?P<value>x)|(?P<step>y)"])
)
def test_whatever_the_line_steps_are_numbers(line, pattern):
    found = parse_line(line, "accuracy", pattern)
    assert found is None or math.isfinite(found.step)


@given(st.lists(st.floats(), max_size=300), st.integers(4, 100))
def test_thinning_keeps_records_ends_and_order(values, limit):
    run = [Measurement(float(step), value) for step, value in enumerate(values)]
    kept = thin(run, limit)
    assert len(kept) <= limit + 1
    steps = [m.step for m in kept]
    assert steps == sorted(set(steps))
    finite = [m.value for m in run if m.is_finite]
    if finite:
        assert max(finite) in [m.value for m in kept]
        assert min(finite) in [m.value for m in kept]
    assert kept[-1:] == run[-1:]
