"""A log is read in whatever pieces it comes, at bounded cost, and nothing is made of nothing."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autotuner.spec.target import parse_target
from autotuner.study import formats
from autotuner.study.formats.reading import Metric
from autotuner.study.logs.doubt import pattern_for
from autotuner.study.logs.log_reader import MAX_LINE, LogReader
from autotuner.study.thinning import MAX_MEASUREMENTS
from autotuner.trial import Measurement

LINES = [
    line
    for path in sorted((Path(__file__).parent / "samples").glob("*.yaml"))
    for sample in yaml.safe_load(path.read_text())
    for line in sample["log"].splitlines(keepends=True)
]


def read(*pieces, target="accuracy >= 0.9", **options):
    reader = LogReader(parse_target(target), **options)
    for piece in pieces:
        reader.feed(piece)
    reader.close()
    return reader


@pytest.mark.parametrize(
    "lead",
    [
        "Training:  50%|#####     | 1/2 [00:00<00:00, 1.2it/s]",
        "training step 100: accuracy=0.5 ",
        "config: ",
        'args {"accuracy": 0.1} ',
        "2026-01-01 12:00:00,123 - train - INFO - ",
    ],
)
def test_what_stands_before_a_record_of_the_sdk_says_nothing_about_it(lead):
    reader = read(f'{lead}{{"autotuner": 1, "step": 3, "accuracy": 0.95}}\n')
    assert reader.measurements == (Measurement(3, 0.95),)
    assert reader.doubt is None


def seen(reader):
    return repr(
        (reader.measurements, reader.extras, reader.format, reader.doubt, reader.warnings, reader.near_misses)
    )


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
            "%",
        ),
        *(
            "step",
            "3",
            '"',
            "{",
            "}",
            "'accuracy'",
            "val ",
            "train ",
            "[rank1]: ",
            "(0.9)",
            "/100",
            ",",
            "|",
            "best ",
        ),
        *(
            "\x1b[1m",
            "\x1b",
            "x" * 3000,
            "loss",
            "\0",
            "é",
            "\u2028",
            "٣",
            "-",
            ".",
            "noise_scale=2",
            "\uff1a",
            "0.5",
        ),
        *(
            "Epoch 1: 100%|##| 4/4 [00:01<00:00, accuracy=0.7]",
            "epoch=2 accuracy=0.8",
            "* Acc@1 76.1",
            "np.float32(0.5)",
        ),
    ]
)
LOGS = st.lists(WORDS | st.text(max_size=5) | st.sampled_from(LINES), max_size=40).map("".join)
TARGETS = st.sampled_from(
    ["accuracy >= 0.9", "Acc@1 >= 75", "loss <= 0.5", "val_acc >= 0.5", "mAP50-95 >= 0.5"]
)


@given(LOGS, st.lists(st.integers(0, 6000), max_size=8), TARGETS)
def test_any_split_of_the_log_is_read_the_same(log, cuts, target):
    places = sorted({0, len(log), *(cut for cut in cuts if cut < len(log))})
    pieces = [log[start:end] for start, end in pairwise(places)]
    assert seen(read(*pieces, target=target)) == seen(read(log, target=target))


@given(st.lists(st.sampled_from(LINES), max_size=8).map("".join), TARGETS)
def test_a_log_fed_a_character_at_a_time_is_read_the_same(log, target):
    assert seen(read(*log, target=target)) == seen(read(log, target=target))


@given(LOGS, TARGETS)
def test_what_is_measured_does_not_change_later(log, target):
    reader, polled = LogReader(parse_target(target)), []
    for line in log.splitlines(keepends=True):
        reader.feed(line)
        polled.append(reader.measurements)
    reader.close()
    if reader.doubt is None:
        for known in polled:
            assert repr(reader.measurements[: len(known)]) == repr(known)


@given(LOGS)
def test_a_log_without_the_name_gives_no_number(log):
    reader = read(log, target="Kappa_xyz >= 0.5")
    assert reader.measurements == ()
    assert reader.near_misses or not any(c.isalnum() for c in log)


@given(LOGS, st.sampled_from(sorted(formats.NAMES)))
def test_every_format_takes_every_log(log, name):
    reader = read(log, log_format=name)
    assert all(m.step == m.step for m in reader.measurements)
    assert reader.doubt is None or reader.measurements == ()


HOSTILE = [
    "accuracy" * 8000,
    "accuracy " * 7000,
    "accuracy=" * 7000,
    "accuracy:" + " " * 60_000,
    "epoch " * 10_000,
    "(" * 60_000,
    "{" * 60_000,
    '{"accuracy":' * 5000,
    "[" * 60_000,
    "tensor(" * 9000,
    "| accuracy " * 5000,
    "accuracy,accuracy " * 3500,
    "1," * 30_000,
    "1" * 60_000,
    "accuracy=" + "1," * 29_000,
    "\x1b[" * 30_000,
    "a " * 30_000,
    " " * 60_000,
    "train " * 10_000 + "accuracy=1",
    "-" * 60_000,
    "━" * 60_000,
    "100%|" * 12_000,
    "epoch 1 | " * 6000,
    "accuracy of the model " * 2900,
]


@pytest.mark.parametrize("line", HOSTILE, ids=lambda line: line[:20])
def test_a_hostile_line_costs_linear_time(line):
    def cost(text):
        start = time.process_time()
        read((text + "\n") * 2)
        return time.process_time() - start

    # A quadratic reader would take 16 times as long for 4 times the text.
    short = min(cost(line[: len(line) // 4]) for _ in range(2))
    assert min(cost(line) for _ in range(2)) < 10 * max(short, 0.01)


def test_a_long_line_of_a_dictionary_is_read():
    items = ", ".join(f"'eval_metric_{i}': 0.{i}" for i in range(1500))
    log = f"{{{items}, 'eval_accuracy': 0.5, 'epoch': 1.0}}\n"
    assert len(log) > 30_000
    assert read(log, target="eval_accuracy >= 0.9").measurements == (Measurement(1, 0.5),)


def test_a_line_past_the_bound_is_passed_over_whole():
    assert read(
        "accuracy=0.93 " + "x" * MAX_LINE + " accuracy=0.95\nepoch=1 accuracy=0.5\n"
    ).measurements == (Measurement(1, 0.5),)


def test_a_long_run_is_thinned_and_keeps_its_records():
    log = "".join(
        f"step={i} accuracy={0.5 + (0.3 if i == 77 else 0)}\n" for i in range(MAX_MEASUREMENTS + 500)
    )
    measurements = read(log).measurements
    assert len(measurements) <= MAX_MEASUREMENTS
    assert max(m.value for m in measurements) == 0.8
    assert measurements[-1].step == MAX_MEASUREMENTS + 499


def test_nothing_in_doubt_counts():
    reader = read("Epoch 1 accuracy: 95.1\nEpoch 2 accuracy: 96.1\n")
    assert reader.measurements == ()
    assert "95.1" in reader.doubt.message
    assert "autotuner.dev/target: 'accuracy >= 90'" in reader.doubt.message


@pytest.mark.parametrize(
    ("target", "values", "fitting"),
    [
        ("eval_wer <= 15", (0.85, 0.75), "eval_wer <= 0.15"),
        ("wer <= 15", (1.02, 0.75), "wer <= 0.15"),
        ("EER <= 5", (0.45, 0.35), "EER <= 0.05"),
        ("bleu >= 0.3", (2.1, 34.1), "bleu >= 30"),
        ("R@1 >= 0.5", (62.1, 64.1), "R@1 >= 50"),
        ("win_rate >= 0.5", (62.1, 64.1), "win_rate >= 50"),
        ("goodness >= 0.8", (62.1, 64.1), "goodness >= 80"),
    ],
)
def test_a_rate_on_another_scale_than_the_target_is_in_doubt(target, values, fitting):
    name = target.split()[0]
    log = "".join(f"epoch {epoch} {name}: {value}\n" for epoch, value in enumerate(values, 1))
    assert read(log, target=target).doubt.remedies == (f"autotuner.dev/target: '{fitting}'",)


@pytest.mark.parametrize(
    ("target", "values"),
    [
        ("wer <= 3", (12.1, 2.4, 0.9)),
        ("bleu >= 30", (0.3, 0.7, 0.9, 34.1)),
        ("loss <= 3", (0.9, 0.8)),
        ("ppl <= 3", (0.9, 2.8)),
        ("loss_per_token <= 3", (0.9, 0.8)),
        ("reward >= 0.5", (20.1, 30.1)),
        ("wer <= 0.2", (1.02, 0.15)),
    ],
)
def test_other_values_on_both_sides_of_1_are_read(target, values):
    name = target.split()[0]
    log = "".join(f"epoch {epoch} {name}: {value}\n" for epoch, value in enumerate(values, 1))
    assert [m.value for m in read(log, target=target).measurements] == list(values)


def test_a_doubt_shows_lines_readings_and_a_pattern_that_settles_it():
    log = "step 1 ssim 0.94\nstep 2 ssim 0.96\nvalidation ssim 0.91\nstep 3 ssim 0.97\nvalidation ssim 0.92\n"
    reader = read(log, target="ssim >= 0.95")
    assert reader.measurements == ()
    assert [value for _, value in reader.doubt.lines] == [0.96, 0.91]
    remedy = reader.doubt.remedies[1]
    pattern = remedy.removeprefix("autotuner.dev/metric-pattern: '").removesuffix("'")
    assert [m.value for m in read(log, target="ssim >= 0.95", pattern=pattern).measurements] == [0.91, 0.92]


def remedied(log, target):
    """Return what each pattern that the doubt about a log offers reads from it."""
    reader = read(log, target=target)
    assert reader.measurements == ()
    offered = [r.removeprefix("autotuner.dev/metric-pattern: '")[:-1] for r in reader.doubt.remedies]
    return [[m.value for m in read(log, target=target, pattern=p).measurements] for p in offered]


def test_a_pattern_that_is_offered_reads_a_line_with_a_logging_prefix():
    prefix = "2024-01-01 10:00:00,000 - INFO - "
    lines = ("step 1 ssim 0.94", "step 2 ssim 0.96", "dev ssim 0.91", "step 3 ssim 0.97", "dev ssim 0.92")
    log = "".join(f"{prefix}{line}\n" for line in lines)
    assert remedied(log, "ssim >= 0.95") == [[0.94, 0.96, 0.97], [0.91, 0.92]]


@pytest.mark.parametrize(
    "log",
    [
        "Epoch: 1\n[==>] Loss: 0.2 | Acc: 92.5% (9/10)\n[==>] Loss: 0.9 | Acc: 86.1% (8/10)\n",
        "Epoch 1: acc 0.81\nEpoch 1: acc 0.93\nEpoch 2: acc 0.81\nEpoch 2: acc 0.93\n",
        "[rank0] epoch 1 acc 0.81\n[rank1] epoch 1 acc 0.93\n",
        "epoch 1 val acc: 0.81\nbest epoch 1, val acc: 0.93\n",
        "epoch 1 val acc: 0.81\nval acc: 0.93 (best)\n",
        "val batch 1/9 acc: 0.93\nval batch 2/9 acc: 0.81\n",
    ],
)
def test_a_pattern_that_reads_lines_of_both_kinds_is_not_offered(log):
    read_again = remedied(log, "acc >= 90" if "%" in log else "acc >= 0.9")
    assert not any(set(values) & {92.5, 0.93} for values in read_again)


def test_a_pattern_that_is_offered_does_not_take_the_end_of_the_sentence():
    log = "AUROC over val set: 0.7512.\nAUROC over test set: 0.9512.\nAUROC: 0.9.\n"
    pattern = pattern_for(Metric("AUROC", 0.8), log.splitlines()[0], 0.7512, log.splitlines()[1:])
    assert [m.value for m in read(log, target="AUROC >= 0.8", pattern=pattern).measurements] == [0.7512]


def test_a_pattern_may_contain_the_logging_prefix_of_its_line():
    log = "".join(f"2024-01-01 10:00:00,000 INFO epoch {e} acc 0.8{e}\n" for e in (1, 2))
    for pattern in (r"INFO epoch \d+ acc (\S+)", r"^ epoch \d+ acc (\S+)", r"^2024.* acc (\S+)"):
        reader = read(log, target="acc >= 0.9", pattern=pattern)
        assert reader.measurements == (Measurement(1, 0.81), Measurement(2, 0.82))


@pytest.mark.parametrize("line", ["Validation loss 10:  0.61", "Validation loss of 0,931", "val_loss ~ 2"])
def test_no_pattern_is_guessed_where_the_number_is_not_understood(line):
    *_, last = read(f"{line}\n", target="Validation loss <= 0.5").near_misses
    assert "metric-pattern: '<what stands before" in last


def test_the_name_of_the_target_is_not_offered_as_another_one():
    misses = read("min val-acc=0.85, x=1\n", target="val_acc >= 0.9").near_misses
    assert not any("the log has" in miss for miss in misses)


def test_of_the_lines_of_the_epochs_one_is_shown_and_a_name_before_its_number_is_found():
    log = "".join(
        f"epoch {epoch}: train loss 1.1 acc 0.70 | validation loss 0.7 acc 0.6{epoch}\n" for epoch in range(9)
    )
    misses = read(log, target="val_acc >= 0.7").near_misses
    assert sum("this line names it" in miss for miss in misses) == 1
    assert "the log has 'acc'; where the target means that" in "\n".join(misses)


def test_a_pattern_takes_the_place_of_the_formats():
    log = "epoch 1 accuracy: 0.99\nholdout -> 0.81 @ 4\n"
    assert read(log, pattern=r"holdout -> (?P<value>\S+) @ (?P<step>\d+)").measurements == (
        Measurement(4, 0.81),
    )
    assert read(log, pattern=r"holdout -> (\S+)").measurements == (Measurement(1, 0.81),)


def test_a_pattern_reads_units_and_thousands():
    assert read("acc 93%\n", pattern=r"acc (\S+)").measurements == (Measurement(1, 0.93),)
    assert read("ppl 1,234.5\n", target="ppl <= 9", pattern=r"ppl (\S+)").measurements == (
        Measurement(1, 1234.5),
    )


def test_a_format_by_name_reads_its_lines_alone():
    log = "epoch 1 accuracy: 0.99\n{'accuracy': 0.81, 'epoch': 1}\n"
    assert read(log, log_format="json").measurements == (Measurement(1, 0.81),)


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="must be one of auto, "):
        read("", log_format="xml")


def test_the_first_line_is_kept_for_people():
    reader = read("\x1b[1mepoch=1\x1b[0m accuracy=0.41 " + "y" * 500 + "\n")
    assert reader.first_line.startswith("epoch=1 accuracy=0.41 y")
    assert len(reader.first_line) == 200


def test_where_nothing_is_read_the_closest_names_and_a_remedy_are_said():
    misses = "\n".join(read("epoch 1 acuracy: 0.5\naccuracy high 5\n").near_misses)
    assert "'acuracy'" in misses
    assert "'accuracy high 5'" in misses
    assert "autotuner.dev/metric-pattern" in misses


def test_what_was_measured_before_a_restart_stays():
    earlier = [Measurement(1, 0.1), Measurement(2, 0.95), Measurement(3, 0.2)]
    again = read("epoch=3 accuracy=0.2\nepoch=4 accuracy=0.3\n", earlier=earlier)
    assert again.measurements == (*earlier, Measurement(4, 0.3))
    assert read("", earlier=earlier).measurements == tuple(earlier)


def test_counted_measurements_of_a_rotated_log_go_on_after_the_earlier_ones():
    earlier = [Measurement(float(i), v) for i, v in enumerate((0.1, 0.2, 0.3, 0.4), 1)]
    rotated = read("accuracy=0.3\naccuracy=0.4\naccuracy=0.5\n", earlier=earlier)
    assert rotated.measurements == (*earlier, Measurement(5, 0.5))
    whole = read("accuracy=0.1\naccuracy=0.2\naccuracy=0.3\naccuracy=0.4\naccuracy=0.5\n", earlier=earlier)
    assert whole.measurements == (*earlier, Measurement(5, 0.5))


def test_the_extras_of_the_sdk_keep_their_last_finite_value():
    reader = read("accuracy=1 noise_scale=10 samples_per_second=5\nnoise_scale=20\nnoise_scale=nan\n")
    assert reader.extras == {"noise_scale": 20, "samples_per_second": 5}


def test_the_size_of_an_epoch_counts_where_the_sdk_says_it_alone():
    said = '{"autotuner": 1, "step": 1, "accuracy": 0.5, "steps_per_epoch": 4, "samples_per_epoch": 1000}\n'
    reader = read('{"steps_per_epoch": 1, "samples_per_epoch": 8}\n' + said)
    assert reader.extras == {"steps_per_epoch": 4, "samples_per_epoch": 1000}


def test_memory_does_not_grow_with_a_line_that_never_ends():
    reader = LogReader(parse_target("accuracy >= 0.9"))
    for _ in range(2000):
        reader.feed("x" * 10_000)
    assert sum(len(part) for part in reader._parts) <= MAX_LINE


def test_memory_does_not_grow_with_the_kinds_of_lines():
    reader = LogReader(parse_target("accuracy >= 0.9"))
    for i in range(5000):
        word = "".join("abcdefghij"[int(c)] for c in str(i))
        reader.feed(
            f"{word} accuracy 0.5\r{word} [rank{i}]: accuracy=0.5\n" + "y" * 3000 + f" {word} accuracy=0.5\n"
        )
    held = [*reader._readings._held.values(), *reader._readings._pending, *reader._readings._training]
    assert len(held) <= 200
    assert all(len(each.line) <= 1000 for each in held)


@pytest.mark.parametrize("word", ["nan", "train", "begin", "in"])
def test_a_word_that_ends_like_a_settings_prefix_does_not_hide_the_epoch(word):
    text = f"accuracy=0.2 epoch=1\naccuracy=0.3 {word} epoch=2\n"
    if word == "nan":
        text = "accuracy=0.2 epoch=1\naccuracy=nan epoch=2\n"
    reader = LogReader(parse_target("accuracy >= 0.9"))
    reader.feed(text)
    reader.close()
    assert reader.doubt is None
    assert [m.step for m in reader.measurements] == [1, 2]


def test_a_fraction_above_one_may_be_a_mistake_of_the_script():
    reader = LogReader(parse_target("val_accuracy >= 0.9"))
    reader.feed("".join(f"val_accuracy={v} epoch={n}\n" for n, v in enumerate((0.27, 0.66, 0.96, 1.09), 1)))
    assert reader.doubt is not None
    assert "it looks like a percentage, or the script counts more samples as right" in reader.doubt.message


def test_a_summary_that_repeats_all_values_with_more_digits_adds_none():
    log = ""
    for epoch, loss in enumerate(["2.323", "2.280", "2.247"]):
        log += f"Train: {epoch} [   0/12 (  0%)]  Loss: 2.39 (2.39)\n"
        log += f"Test: [   7/7]  Time: 0.004 (0.011)  Loss:   2.343 ({loss:>6})  Acc@1:  12.500 ( 21.667)\n"
    log += "--result\n[\n"
    for epoch, loss in enumerate([2.3231494585673014, 2.2798423767089844, 2.247281805674235]):
        log += (
            f'    {{\n        "epoch": {epoch},\n        "train": {{\n            "loss": 2.34\n        }},\n'
        )
        log += f'        "validation": {{\n            "loss": {loss}\n        }}\n    }},\n'
    reader = LogReader(parse_target("loss <= 2.2"))
    reader.feed(log + "]\n")
    reader.close()
    assert [(m.step, m.value) for m in reader.measurements] == [(0, 2.323), (1, 2.28), (2, 2.247)]
    assert reader.warnings == ()


def test_a_run_that_prints_nan_alone_again_and_again_is_in_no_doubt():
    reader = read("accuracy=nan\n" * 5)
    assert reader.doubt is None
    assert reader.measurements
    assert not any(measured.is_finite for measured in reader.measurements)


def parts(*lengths):
    values = [(e, 0.9 - 0.8 * 0.6**e + i / 50) for i, n in enumerate(lengths) for e in range(1, n + 1)]
    log = LogReader(parse_target("val_accuracy >= 0.9"))
    log.feed("".join(f"epoch={epoch} val_accuracy={value:.4f}\n" for epoch, value in values))
    log.close()
    return log


@pytest.mark.parametrize("lengths", [(8, 8), (5, 5, 5), (8, 8, 3)])
def test_parts_of_one_length_are_several_runs_though_no_line_says_so(lengths):
    log = parts(*lengths)
    assert log.measurements == ()
    assert "the log has several runs" in log.doubt.reason


@pytest.mark.parametrize("lengths", [(12,), (5, 12), (5, 3, 12)])
def test_a_run_that_was_restarted_is_one_run(lengths):
    log = parts(*lengths)
    assert log.doubt is None
    assert log.measurements[-1].step == 12
    assert any("restarted" in warning for warning in log.warnings) == (len(lengths) > 1)


def numbered(of, *lengths, first=1):
    """Return the log of parts whose lines name the epoch and the number of epochs: `of` in the first part."""
    log = LogReader(parse_target("val_accuracy >= 0.9"))
    for part, length in enumerate(lengths):
        epochs = of if part == 0 else length
        for e in range(first, length + first):
            value = 0.9 - 0.8 * 0.6 ** (e + 1) + part / 50
            log.feed(f"Epoch {e}/{epochs}\n loss: 0.5 - val_accuracy: {value:.4f}\n")
    log.close()
    return log


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("lengths", [(20, 10), (5, 12)])
def test_a_part_that_had_all_its_epochs_was_not_restarted(first, lengths):
    """A pre-training that meets the target says nothing of the fine-tuning after it."""
    log = numbered(lengths[0], *lengths, first=first)
    assert log.measurements == ()
    assert "several parts, of which one ended with its last epoch" in log.doubt.reason


def test_a_run_that_broke_off_before_its_last_epoch_was_restarted():
    log = numbered(12, 5, 12)
    assert log.doubt is None
    assert log.measurements[-1].step == 12


def test_a_doubt_about_training_values_names_the_validations_metric():
    log = LogReader(parse_target("acc >= 0.9"))
    log.feed("".join(f"epoch {e} acc {0.1 * e:.4f} val_acc {0.09 * e:.4f}\n" for e in range(1, 9)))
    log.close()
    assert log.doubt.remedies == ("autotuner.dev/target: 'val_acc >= 0.9'",)
