"""Kubernetes quantities as whole numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.job.quantity import whole


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        (0, 0),
        (8, 8),
        ("8", 8),
        ("+8", 8),
        (0.5, 1),
        ("500m", 1),
        ("1500m", 2),
        ("2000m", 2),
        (".5", 1),
        ("1.", 1),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Gi", 1536 * 1024**2),
        ("1e3", 1000),
        ("5E-1", 1),
        ("1E", 10**18),
        ("100n", 1),
    ],
)
def test_a_quantity_is_rounded_up(quantity, number):
    assert whole(quantity) == number


@pytest.mark.parametrize(
    "wrong", [None, True, "", "x", "-1", -1, "1 ", "1KI", "1ki", [], {}, "1e999", "²", "inf"]
)
def test_what_is_no_quantity_is_refused(wrong):
    with pytest.raises(ValueError, match="is not a quantity"):
        whole(wrong)


@given(st.text(max_size=12) | st.integers() | st.floats())
def test_whatever_is_written_is_a_number_or_refused(written):
    try:
        assert whole(written) >= 0
    except ValueError:
        return
