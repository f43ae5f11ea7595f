"""Studies in which nothing has changed cost nothing, however many others are active."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

import pytest

from autotuner.decide import decide
from autotuner.search.ensemble import Ensemble
from autotuner.search.fitting import fit
from autotuner.search.frontier import candidates
from autotuner.search.memory import Memory, digest_of
from autotuner.search.model import Posterior
from autotuner.search.monte_carlo import sample
from autotuner.search.sampler import ask
from autotuner.trial import Outcome, Purpose, Trial
from tests.builders import NOON, suggestion, trial
from tests.simulation.learners import spec

COSTLY = (fit, sample, candidates, Posterior.__init__, Ensemble.__init__, ask)
"""What takes milliseconds and more."""
STUDIES = 18
"""More than there are models in memory."""


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the calls of the costly functions."""
    names: dict[CodeType, str] = {function.__code__: function.__qualname__ for function in COSTLY}
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code in names:
            calls[names[frame.f_code]] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def trials(study: int) -> list[Trial]:
    off = 0.0001 * study
    return [
        trial(0, (0.5, 0.91 + off), Outcome.REACHED, suggestion(0, purpose=Purpose.BASELINE)),
        trial(1, (0.4, 0.7, 0.92 - off), Outcome.REACHED, suggestion(1, batch_size=64)),
        trial(2, (0.1, 0.2, 0.3 + off), None, suggestion(2, batch_size=128)),
    ]


@pytest.mark.parametrize(
    "asked",
    [spec(), spec(parallel_trials="2"), spec(parallel_trials="2", sampler="tpe")],
    ids=["no slot is free", "a trial waits for a slot of the cluster", "and is proposed by another sampler"],
)
def test_a_second_poll_of_many_studies_computes_nothing(asked):
    studies = [trials(study) for study in range(STUDIES)]
    decisions = [decide(asked, study, NOON) for study in studies]
    with counted() as calls:
        assert [decide(asked, study, NOON) for study in studies] == decisions
    assert not calls


def test_a_first_poll_computes():
    with counted() as calls:
        decide(spec(), trials(STUDIES + 1), NOON)
    assert {"fit", "sample", "Posterior.__init__", "Ensemble.__init__"} <= calls.keys()


def test_a_memory_of_a_thousand_studies_computes_each_result_once():
    memory, made = Memory[None](1000), []
    for _ in range(3):
        for study in range(1000):
            assert (
                memory.of(
                    digest_of(b"study", bytes([study % 256, study // 256])), lambda: made.append(0) or 7
                )
                == 7
            )
    assert len(made) == 1000


def test_a_memory_drops_the_least_recently_used():
    memory, made = Memory[str](2), []

    def result(key: str) -> str:
        made.append(key)
        return key

    for key in "abacab":
        assert memory.of(key.encode(), lambda key=key: result(key)) == key
    assert made == ["a", "b", "c", "b"]


def test_nothing_is_a_result_like_any_other():
    memory, made = Memory[None](2), []
    for _ in range(2):
        memory.of(b"", lambda: made.append(0))
    assert len(made) == 1


def test_a_digest_tells_apart_where_its_parts_end():
    assert digest_of(b"ab", b"c") != digest_of(b"a", b"bc")
