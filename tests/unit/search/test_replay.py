"""Runs are judged at fixed points of their curves, whenever their measurements arrive."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from autotuner.decide import decide
from autotuner.search.replay import replayed
from autotuner.study.history import History, Unit
from autotuner.trial import Judged, Measurement, Outcome, Purpose, Trial
from tests.builders import NOON, suggestion, trial
from tests.simulation.learners import STEPS, Curve, World, hill, spec

RISING = tuple(0.3 + 0.03 * step for step in range(STEPS))


def test_what_a_run_measures_after_it_met_the_target_does_not_count():
    asked = spec()
    met = trial(0, (0.5, 0.91, 0.99), Outcome.REACHED, suggestion(0, purpose=Purpose.BASELINE))
    found = replayed(History.of(asked, [met]))
    assert [m.value for m in found.history.trials[0].measurements] == [0.5, 0.91]


def test_a_baseline_that_is_cut_where_it_met_the_target_still_shows_how_long_a_run_is():
    whole = (0.5, 0.91, *(0.95,) * 6)
    met = trial(0, whole, Outcome.REACHED, suggestion(0, purpose=Purpose.BASELINE))
    found = replayed(History.of(spec(run_length=None), [met])).history
    assert len(found.trials[0].measurements) == 2
    assert (found.run_length, found.is_length_known, found.unit) == (8, True, Unit.EPOCH)


@pytest.mark.parametrize(("length", "is_stopped"), [(None, False), ("8", True)])
def test_only_a_length_that_the_user_has_set_ends_a_run_that_continues(length, is_stopped):
    # Many a script stops by itself when its metric no longer rises, at one setting earlier than at another.
    met = trial(0, (0.5, 0.91, *(0.92,) * 6), Outcome.REACHED, suggestion(0, purpose=Purpose.BASELINE))
    longer = trial(1, (0.5, 0.88, *(0.897,) * 7), None, suggestion(1, batch_size=48))
    found = replayed(History.of(spec(run_length=length), [replace(met, is_complete=True), longer]))
    assert [v.outcome for n, v in found.verdicts.items() if n == 1] == [Outcome.MISSED] * is_stopped


def test_a_run_that_was_not_seen_until_it_had_ended_is_judged_as_one_that_was():
    asked = spec()
    known = [trial(0, (0.5, 0.91), Outcome.REACHED, suggestion(0, purpose=Purpose.BASELINE))]
    hopeless = tuple(0.2 + 0.001 * step for step in range(STEPS))
    running = [trial(1, hopeless[:seen], None, suggestion(1, batch_size=48)) for seen in range(1, STEPS)]
    seen = [replayed(History.of(asked, [*known, one])).verdicts.get(1) for one in running]
    first = next(verdict for verdict in seen if verdict is not None)
    ended = trial(1, hopeless, Outcome.MISSED, suggestion(1, batch_size=48))
    late = replayed(History.of(asked, [*known, ended]))
    assert late.verdicts[1] == first
    assert late.history.trials[1].outcome is first.outcome
    assert late.history.trials[1].measurements[-1].step == first.step


def test_a_run_that_starts_with_equal_values_is_stopped_where_it_is_when_they_are_read_one_by_one():
    known = [trial(0, (0.5, 0.91), Outcome.REACHED, suggestion(0, purpose=Purpose.BASELINE))]
    flat = (0.1, 0.1, 0.1, 0.15, 0.15, 0.15, 0.2, 0.2, 0.2)
    running = [trial(1, flat[:seen], None, suggestion(1, batch_size=48)) for seen in range(1, len(flat) + 1)]
    found = [replayed(History.of(spec(), [*known, one])).verdicts.get(1) for one in running]
    first = next(number for number, verdict in enumerate(found) if verdict is not None)
    assert found[first:] == [found[first]] * (len(flat) - first)
    assert first < 4


def test_a_hopeless_run_is_hopeless_whatever_it_printed_before_it_was_stopped():
    asked = spec()
    known = [trial(0, (0.5, 0.91), Outcome.REACHED, suggestion(0, purpose=Purpose.BASELINE))]
    flat = [0.2 + 0.001 * step for step in range(STEPS - 1)]
    confirmation = suggestion(1, batch_size=48, purpose=Purpose.CONFIRM)
    missed = replayed(History.of(asked, [*known, trial(1, (*flat, 0.3), None, confirmation)]))
    assert missed.verdicts[1].outcome is Outcome.HOPELESS
    # Read after every line, it would have been stopped before it met the target.
    for outcome in (None, Outcome.HOPELESS, Outcome.REACHED):
        met = replayed(History.of(asked, [*known, trial(1, (*flat, 0.95), outcome, confirmation)]))
        assert met.verdicts[1] == missed.verdicts[1]
        assert met.history.trials[1].measurements == missed.history.trials[1].measurements


def test_a_run_that_would_have_been_stopped_as_promising_has_not_missed_because_it_ended_first():
    asked = spec()
    known = [trial(0, (*RISING[:-1], 0.97), Outcome.REACHED, suggestion(0, purpose=Purpose.BASELINE))]
    for number, size in ((1, 40), (2, 48)):
        known.append(
            trial(number, (*RISING[:-1], 0.97), Outcome.REACHED, suggestion(number, batch_size=size))
        )
    ended = replace(
        trial(3, (*RISING[:-1], 0.97), Outcome.REACHED, suggestion(3, batch_size=44)), is_complete=True
    )
    found = replayed(History.of(asked, [*known, ended]))
    assert found.verdicts[3].outcome is Outcome.PROMISING
    assert not found.history.has_missed(found.history.trials[3])


def test_a_run_is_not_stopped_for_what_others_did_before_its_own_curve_shows_anything():
    space = "{learning_rate: {min: 0.0001, max: 3, log: true}, optimizer: [sgd, adamw]}"
    asked = spec(baseline={"batch_size": 32, "learning_rate": 0.3, "optimizer": "sgd"}, search_space=space)

    def run(number: int, size: int, rate: float, optimizer: str, best: float, seen: int = STEPS) -> Trial:
        curve = best * (1 - np.exp(-6 * np.arange(1, seen + 1) / STEPS))
        purpose = Purpose.SEARCH if number else Purpose.BASELINE
        parameters = {"learning_rate": rate, "optimizer": optimizer}
        chosen = suggestion(number, batch_size=size, purpose=purpose, parameters=parameters)
        outcome = Outcome.REACHED if curve.max() >= 0.9 else Outcome.HOPELESS
        return trial(number, tuple(curve.tolist()), outcome, chosen)

    known = [
        run(0, 32, 0.3, "sgd", 0.928),
        run(1, 128, 0.6, "sgd", 0.91),
        run(2, 256, 0.85, "sgd", 0.89),
        run(3, 225, 1.4, "adamw", 0.4, seen=4),
        run(4, 220, 0.5, "adamw", 0.6, seen=4),
        run(5, 226, 0.12, "adamw", 0.78, seen=7),
        run(6, 180, 0.3, "sgd", 0.885),
    ]
    good = replace(run(7, 296, 0.0128, "adamw", 0.925, seen=1), outcome=None)
    assert 7 not in replayed(History.of(asked, [*known, good])).verdicts
    bad = replace(run(7, 296, 0.0128, "adamw", 0.3, seen=2), outcome=None)
    assert replayed(History.of(asked, [*known, bad])).verdicts[7].outcome is Outcome.HOPELESS


def told(read: Callable[[int], int], curve: Curve) -> list[tuple[object, ...]]:
    """What is started, one after the other, where `read` says how many measurements arrive at once."""
    asked, world = spec(), World(spec(), curve, step_noise=0.01)
    trials: dict[int, Trial] = {}
    started, now = [], NOON
    for tick in range(400):
        now += timedelta(minutes=1)
        decision = decide(asked, list(trials.values()), now)
        for stop in decision.stop:
            ended = {"outcome": stop.outcome, "judged": stop.judged, "is_complete": False}
            trials[stop.number] = replace(trials[stop.number], **ended)
        if decision.is_final:
            assert decision.answer is not None
            return [*started, {**decision.answer.as_json(), "metric": None}]
        for one in decision.start:
            trials[one.number] = Trial(one)
            started.append((one.batch_size, dict(one.parameters), one.purpose))
        for number, one in trials.items():
            if one.outcome is None:
                whole = world.measured(one.suggestion)
                count = min(len(one.measurements) + read(tick), len(whole))
                measured = tuple(Measurement(i + 1.0, float(v)) for i, v in enumerate(whole[:count]))
                met = any(asked.target.is_met(float(v)) for v in whole)
                end = (Outcome.REACHED if met else Outcome.MISSED) if count == len(whole) else None
                trials[number] = Trial(
                    one.suggestion, measured, end, is_complete=None if end is None else True
                )
    raise AssertionError("no end")


@pytest.mark.parametrize(
    "curve", [hill(), hill(progress=lambda t: 0.8 * t + 0.2 * (t > 0.9))], ids=["usual", "late"]
)
def test_the_same_curves_lead_to_the_same_decisions_however_fast_they_are_read(curve: Curve):
    slow, rng = told(lambda _: 1, curve), np.random.default_rng(0)
    assert told(lambda _: STEPS, curve) == slow
    assert told(lambda _: int(rng.integers(1, STEPS)), curve) == slow


@pytest.mark.parametrize("seen", [1, 7])
def test_a_running_trial_counts_up_to_the_last_point_it_was_judged_at(seen: int):
    asked = spec(run_length="1000")
    known = [trial(0, (0.5, 0.91), Outcome.REACHED, suggestion(0, purpose=Purpose.BASELINE))]
    running = trial(1, [0.4 + 0.001 * s for s in range(40 + seen)], None, suggestion(1, batch_size=40))
    found = replayed(History.of(asked, [*known, running]))
    assert len(found.history.trials[1].measurements) == 40


def test_a_run_is_not_hopeless_for_little_progress_while_the_unit_of_steps_is_unknown():
    asked = spec(run_length=None)
    curve = [0.9 - 0.6 * 0.5 ** (step / 200) for step in range(0, 1000, 50)]
    whole = [Measurement(50.0 * (i + 1), v + 0.02) for i, v in enumerate(curve)]
    known = Trial(suggestion(0, purpose=Purpose.BASELINE), tuple(whole), Outcome.REACHED)
    slow = tuple(Measurement(50.0 * (i + 1), 0.3) for i in range(6))
    running = Trial(suggestion(1, batch_size=64), slow, None)
    assert not replayed(History.of(asked, [known, running])).verdicts
    shown = Trial(
        suggestion(1, batch_size=64),
        tuple(Measurement(50.0 * (i + 1), 0.3) for i in range(20)),
        Outcome.MISSED,
    )
    again = Trial(suggestion(2, batch_size=64), slow, None)
    assert replayed(History.of(asked, [known, shown, again])).verdicts[2].outcome is Outcome.HOPELESS


def judged_at(step: float, study: str, outcome: Outcome) -> Trial:
    """A run that rises to the target, recorded as stopped at a step."""
    found = trial(1, RISING, outcome, suggestion(1, batch_size=48))
    return replace(found, judged=Judged(step, study))


def test_a_recorded_verdict_stands_while_runs_are_judged_by_the_same():
    known = trial(0, (0.5, 0.91), Outcome.REACHED, suggestion(0, purpose=Purpose.BASELINE))
    asked = spec()
    study = replayed(History.of(asked, [known])).study
    stands = replayed(History.of(asked, [known, judged_at(5, study, Outcome.HOPELESS)]))
    assert stands.verdicts[1].step == 5
    assert len(stands.history.trials[1].measurements) == 5
    easier = spec(target="accuracy >= 0.5")
    again = replayed(History.of(easier, [known, judged_at(5, study, Outcome.HOPELESS)]))
    assert again.study != study
    assert again.verdicts[1].outcome is not Outcome.HOPELESS


def test_what_runs_are_judged_by_has_the_same_digest_in_every_process():
    program = (
        "from autotuner.search.replay import replayed\n"
        "from autotuner.study.history import History\n"
        "from tests.simulation.learners import spec\n"
        "asked = spec(search_space='{optimizer: [sgd, lion], learning_rate: {min: 0.1, max: 1}}')\n"
        "print(replayed(History.of(asked, [])).study)"
    )
    asked = spec(search_space="{optimizer: [sgd, lion], learning_rate: {min: 0.1, max: 1}}")
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == replayed(History.of(asked, [])).study
