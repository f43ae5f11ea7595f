"""A target is written with the name that the log prints."""

from __future__ import annotations

import pytest

from autotuner.spec.target import parse_target


@pytest.mark.parametrize(
    ("text", "metric", "comparison", "threshold"),
    [
        ("accuracy >= 0.93", "accuracy", ">=", 0.93),
        ("accuracy>=0.93", "accuracy", ">=", 0.93),
        ("Val Acc >= 0.9", "Val Acc", ">=", 0.9),
        ("  Val   Acc  >=  0.9 ", "Val Acc", ">=", 0.9),
        ("Acc@1 >= 75.9", "Acc@1", ">=", 75.9),
        ("metrics/mAP50-95(B) >= 0.5", "metrics/mAP50-95(B)", ">=", 0.5),
        ("val.top1 <= 1e-3", "val.top1", "<=", 0.001),
        ("val_loss <= -0.7", "val_loss", "<=", -0.7),
        ("准确率 >= 0.9", "准确率", ">=", 0.9),
        ("accuracy ≥ 0.93", "accuracy", ">=", 0.93),
        ("accuracy >= 93%", "accuracy", ">=", 0.93),
        ("accuracy >= 93 percent", "accuracy", ">=", 0.93),
    ],
)
def test_a_target_is_a_name_a_comparison_and_a_number(text, metric, comparison, threshold):
    target = parse_target(text)
    assert (target.metric, target.comparison, target.threshold) == (metric, comparison, threshold)


@pytest.mark.parametrize("text", ["", "accuracy", "accuracy 0.93", ">= 0.93", "a >= b >= 1"])
def test_a_rule_says_what_a_target_consists_of(text):
    with pytest.raises(ValueError, match="must be a metric as the log prints it, >= or <=, and a number"):
        parse_target(text)


@pytest.mark.parametrize("comparison", [">", "<", "==", "=", "=>", "=<"])
def test_a_rule_names_the_comparisons(comparison):
    with pytest.raises(ValueError, match=f"by >= or <=, not by {comparison}$"):
        parse_target(f"accuracy {comparison} 0.93")


def test_a_rule_names_the_annotation_for_a_name_that_cannot_be_written():
    with pytest.raises(ValueError, match=r"metric-pattern.*not as 'a \\x00'"):
        parse_target("a\n\x00 >= 1")


@pytest.mark.parametrize(
    "text", ["accuracy >= high", "accuracy >= nan", "accuracy >= inf", "accuracy >= 9 cm", "a >= 1_0"]
)
def test_a_threshold_is_a_finite_number(text):
    with pytest.raises(ValueError, match="must be a number"):
        parse_target(text)


def test_what_is_no_text_is_left_to_the_schema():
    assert parse_target(3) == 3


def test_a_long_text_is_refused_at_once():
    with pytest.raises(ValueError, match="must be a metric"):
        parse_target("a " * 100_000)
