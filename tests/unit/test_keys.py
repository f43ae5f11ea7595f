"""Names: the same whoever asks, short enough, and valid where Kubernetes checks them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner import keys

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
JOB_NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
UIDS = st.uuids().map(str) | st.just("")
NUMBERS = st.integers(0, 10**9)


@given(JOB_NAMES, UIDS, NUMBERS)
def test_a_trial_name_is_dns_1035_and_leaves_room_for_the_pods_suffix(job, uid, number):
    name = keys.trial_name(job, uid, number)
    assert len(name) <= 50
    assert DNS_1035.fullmatch(name)
    assert name.endswith(f"-{number}")


@given(JOB_NAMES, UIDS, st.sets(NUMBERS, min_size=2, max_size=20))
def test_the_trials_of_a_job_have_distinct_names(job, uid, numbers):
    assert len({keys.trial_name(job, uid, number) for number in numbers}) == len(numbers)


def test_jobs_that_begin_alike_have_trials_of_distinct_names():
    names = {keys.trial_name("a" * 60 + end, f"uid-{end}", 7) for end in "bcd"}
    assert len(names) == 3


def test_a_job_that_is_created_again_under_its_name_has_new_trials():
    assert keys.trial_name("toy", "first", 0) != keys.trial_name("toy", "second", 0)


def test_a_trial_name_is_the_same_in_every_process():
    # Written down: a name that changes between versions would start running trials a second time.
    assert keys.trial_name("resnet50", "8c8b0b6e-0000-4000-8000-000000000000", 12) == "resnet50-dafe11-12"


@given(st.integers(0, 99_999), st.integers(0, 99_999))
def test_ledger_keys_sort_as_their_numbers_do(one, other):
    assert (keys.ledger_key(one) < keys.ledger_key(other)) == (one < other)
    assert keys.ledger_number(keys.ledger_key(one)) == one


@pytest.mark.parametrize(
    "key", ["", "trial", "trial-", "trial-x", "xtrial-1", "trial-1 (copy)", "trial--1", "job"]
)
def test_a_key_that_names_no_trial_is_passed_over(key):
    assert keys.ledger_number(key) is None
