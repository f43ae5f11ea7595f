"""Problems at the edges: other metrics, spaces, noises and shapes of curves."""

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pytest

from autotuner.decide.decision import Decision, Reason
from autotuner.spec import Shape
from autotuner.study.findings.batch_check import repeated_by
from autotuner.study.setting import setting
from autotuner.trial import Outcome, ParameterValue, Purpose, Suggestion, Trial
from autotuner.wording import message
from tests.simulation.learners import BASELINE, STEPS, Curve, World, hill, largest, spec


def reaches(world: World, best: int, within: float = 0.75) -> Decision:
    """The answer is confirmed, no larger than what is feasible, and near to it. Returns the last decision."""
    decision = world.run()
    assert decision.is_final
    answer = decision.answer
    assert answer is not None
    assert answer.is_confirmed, message(decision, world.spec)
    assert best * 2**-within <= answer.batch_size <= best * 1.1
    return decision


def test_a_loss_is_minimised():
    accuracy = hill()
    world = World(spec(target="loss <= 0.1"), lambda b, p: 1 - accuracy(b, p))
    reaches(world, largest(accuracy, 0.9))


def test_percent_and_fractions_lead_to_the_same_trials():
    fraction = World(spec(), hill())
    percent = World(
        spec(target="accuracy >= 90"), lambda b, p: 100 * hill()(b, p), run_noise=0.2, step_noise=0.1
    )
    first, second = fraction.run(), percent.run()
    assert first.answer is not None
    assert second.answer is not None
    assert abs(math.log2(first.answer.batch_size / second.answer.batch_size)) < 0.5


def test_curves_that_rise_and_fall_count_by_their_best():
    def peaked(t: np.ndarray) -> np.ndarray:
        return (1 - np.exp(-12 * t)) * (1 - 0.15 * t)

    curve = hill(top=1.0, progress=peaked)
    reaches(World(spec(), curve), largest(curve, 0.9))


def test_curves_that_peak_at_their_second_step_are_not_given_up_at_the_first():
    def peaked(t: np.ndarray) -> np.ndarray:
        return np.where(t < 1.5 / STEPS, 0.6, 1 - 0.1 * t)

    curve = hill(top=0.95, progress=peaked)
    reaches(World(spec(), curve), largest(curve, 0.9))


def test_curves_that_gain_late_are_not_given_up():
    curve = hill(progress=lambda t: 0.8 + 0.2 * t**3)
    reaches(World(spec(), curve), largest(curve, 0.9))


def test_a_plateau_above_the_target_is_climbed_to_its_edge():
    def curve(batch_size, parameters):
        # Nearly flat: runs equal to the last digit are those of a script that does not use what it is given.
        best = (0.91 if batch_size <= 200 else 0.7) + 1e-5 * math.log(parameters["learning_rate"])
        return best * (1 - np.exp(-6 * np.arange(1, STEPS + 1) / STEPS))

    reaches(World(spec(), curve), 200)


def test_noise_ten_times_larger_still_ends_with_an_answer_that_is_not_far_off():
    curve = hill(top=0.95)
    decision = World(spec(), curve, run_noise=0.02, step_noise=0.01).run()
    assert decision.is_final
    assert decision.answer is not None
    assert decision.answer.is_confirmed
    assert curve(decision.answer.batch_size, decision.answer.parameters).max() >= 0.9 - 0.02


SEEDS = ["0", "1", "2"]
"""A choice of optimizers was once a matter of luck: one seed showed it, another did not."""


def is_too_high(batch_size: int, parameters: Mapping[str, ParameterValue]) -> bool:
    return float(parameters["learning_rate"]) > 1.2 * 0.1 * batch_size / 32


def test_a_learning_rate_with_which_the_metric_is_nan_at_once_is_not_tried_again_and_again():
    """Other versions of NumPy and SciPy lead to other decisions, so one of the seeds may be unlucky."""
    good = hill()

    def curve(batch_size: int, parameters: Mapping[str, ParameterValue]) -> np.ndarray:
        return np.full(STEPS, np.nan) if is_too_high(batch_size, parameters) else good(batch_size, parameters)

    found = []
    for seed in (*SEEDS, "7", "20"):
        world = World(spec(seed=seed), curve)
        found.append(reaches(world, 173, within=2.5).answer.batch_size)
        searched = [t for t in world.trials.values() if t.suggestion.purpose is not Purpose.CHECK]
        assert sum(t.outcome is Outcome.DIVERGED for t in searched) <= 3
    assert sorted(found)[1] >= 173 * 2**-0.7


@pytest.mark.parametrize("seed", ["0", "1", "3"])
def test_a_program_that_fails_with_some_learning_rates_does_not_end_the_study(seed: str):
    def fate(tried: Suggestion, step: int) -> Outcome | None:
        return Outcome.FAILED if is_too_high(tried.batch_size, tried.parameters) and step == 1 else None

    world = World(spec(seed=seed), hill(), fate=fate)
    reaches(world, 173, within=1.0)
    searched = [t for t in world.trials.values() if t.suggestion.purpose is not Purpose.CHECK]
    assert sum(t.outcome is Outcome.FAILED for t in searched) <= 3


@pytest.mark.parametrize("seed", SEEDS)
def test_curves_that_jump_where_the_learning_rate_decays_are_not_given_up_before(seed: str):
    epochs = np.arange(1, 31)
    jump = np.where(epochs <= 20, 0.75 * (1 - np.exp(-epochs / 3)), 1 - 0.03 * np.exp((20 - epochs) / 2))

    def curve(batch_size: int, parameters: Mapping[str, ParameterValue]) -> np.ndarray:
        off = math.log(float(parameters["learning_rate"]) / (0.1 * batch_size / 32))
        best = 0.93 - 0.03 * max(math.log2(batch_size / 128), 0) - 0.05 * off**2
        return np.maximum(best, 0.1) * jump

    reaches(World(spec(seed=seed, run_length=None), curve), largest(curve, 0.9))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_number_of_epochs_that_is_searched_is_the_length_of_a_run(seed: str):
    def curve(batch_size: int, parameters: Mapping[str, ParameterValue]) -> np.ndarray:
        off = math.log(float(parameters["learning_rate"]) / (0.1 * batch_size / 32))
        best = 0.96 - 0.02 * max(math.log2(batch_size / 128), 0) - 0.03 * off**2
        epochs = np.arange(1, int(parameters["epochs"]) + 1)
        return np.maximum(best, 0.1) * (1 - np.exp(-0.7 * epochs * (32 / batch_size) ** 0.25))

    space = "{learning_rate: {min: 0.001, max: 10, log: true}, epochs: {min: 3, max: 20, type: int}}"
    own = {"batch_size": 32, "learning_rate": 0.1, "epochs": 6}
    # With the six epochs of the unchanged job 150 is the largest.
    reaches(World(spec(baseline=own, search_space=space, seed=seed, run_length=None), curve), 947)


def fails(
    sizes: Callable[[int], bool], at: int = 1, end: Outcome = Outcome.FAILED
) -> Callable[[Suggestion, int], Outcome | None]:
    return lambda tried, step: end if sizes(tried.batch_size) and step == at else None


@pytest.mark.parametrize("parallel", ["1", "4"])
@pytest.mark.parametrize("most", [40, 100])
def test_a_program_that_fails_at_large_batches_bounds_the_search_as_memory_does(most: int, parallel: str):
    fate = fails(lambda size: size > most)
    world = World(spec(parallel_trials=parallel), hill(critical=256), fate=fate)
    decision = reaches(world, most, within=0.15)
    assert any("the program fails at batch size" in warning for warning in decision.warnings)


@pytest.mark.parametrize("end", [Outcome.FAILED, Outcome.OUT_OF_MEMORY])
def test_a_batch_that_is_known_to_fail_is_not_said_to_be_likely(end: Outcome):
    """The trials end before the batches between one that works and one that fails are tried."""
    fate = fails(lambda size: size > 90, end=end)
    world = World(spec(max_trials="11", confirmations="1"), hill(critical=512), fate=fate)
    answer = world.run().answer
    assert answer is not None
    failed = min(t.suggestion.batch_size for t in world.trials.values() if t.outcome is end)
    assert answer.is_confirmed
    assert answer.batch_size < failed <= 2**0.5 * answer.batch_size
    assert answer.probability_larger == 0


def test_a_program_that_fails_late_at_large_batches_bounds_the_search_too():
    world = World(spec(), hill(critical=256), fate=fails(lambda size: size > 100, at=6))
    reaches(world, 100, within=0.15)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_program_that_needs_a_power_of_two_is_tuned_with_powers_of_two(seed: str):
    fate = fails(lambda size: bool(size & (size - 1)))
    decision = reaches(World(spec(seed=seed), hill(critical=256), fate=fate), 256, within=0.01)
    assert any("only 32 times powers of two are tried" in warning for warning in decision.warnings)


def test_a_program_that_needs_multiples_is_tuned_with_multiples_of_its_own_batch_size():
    fate = fails(lambda size: size % 16 != 0)
    reaches(World(spec(seed="1"), hill(critical=256), fate=fate), 320, within=0.3)


@pytest.mark.parametrize("end", [Outcome.FAILED, Outcome.OUT_OF_MEMORY])
def test_a_study_ends_where_no_batch_size_is_left_below_one_that_fails(end: Outcome):
    """Of the multiples of 36 only 108 is next to 72, and fails: nothing larger is left to search for."""
    asked = spec({"batch_size": 36, "learning_rate": 0.1})
    if end is Outcome.OUT_OF_MEMORY:
        asked = asked.model_copy(update={"shape": Shape(masters=1, workers=35)})
    fate = fails(lambda size: size > 72 or size % 36 != 0, end=end)
    world = World(asked, hill(), fate=fate)
    decision = reaches(world, 72, within=0.01)
    assert decision.reason is Reason.LARGER_UNLIKELY
    assert decision.answer is not None
    assert decision.answer.probability_larger == 0
    assert len(world.trials) < 20


def test_a_program_that_breaks_during_a_study_is_distinguished_from_settings_that_fail():
    world = World(spec(), hill(), fate=lambda tried, _: Outcome.FAILED if tried.number >= 5 else None)
    assert world.run().reason is Reason.PROGRAM_FAILS
    assert len(world.trials) == 8
    assert world.trials[7].suggestion.purpose is Purpose.BASELINE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("best", ["sgd", "lars"])
def test_choices_and_integers_are_searched(best: str, seed: str):
    accuracy = hill()

    def curve(batch_size, parameters):
        penalty = 0.0 if parameters["optimizer"] == best else 0.02 * max(math.log2(batch_size / 32), 0)
        return accuracy(batch_size, parameters) - penalty - 0.004 * abs(parameters["warmup"] - 3)

    space = (
        "{learning_rate: {min: 0.001, max: 10, log: true}, optimizer: [sgd, lars],"
        " warmup: {min: 0, max: 8, type: int}}"
    )
    baseline = {"batch_size": 32, "learning_rate": 0.1, "optimizer": "sgd", "warmup": 3}
    world = World(spec(baseline=baseline, search_space=space, seed=seed), curve)
    reaches(world, largest(accuracy, 0.9), within=1.3)
    assert all(isinstance(t.suggestion.parameters["warmup"], int) for t in world.trials.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_an_optimizer_whose_learning_rates_lie_a_hundred_times_lower_is_found(seed: str):
    tops = {"sgd": 0.3, "adamw": 0.003, "rmsprop": 0.001}
    critical = {"sgd": 64, "adamw": 700, "rmsprop": 200}

    def curve(batch_size, parameters):
        optimizer = parameters["optimizer"]
        top = tops[optimizer] * math.sqrt(batch_size / 32)
        off = math.log(parameters["learning_rate"] / top)
        best = 0.93 - 0.02 * max(math.log2(batch_size / critical[optimizer]), 0) - 0.02 * off**2
        return np.maximum(best, 0.1) * (1 - np.exp(-6 * np.arange(1, STEPS + 1) / STEPS))

    space = "{learning_rate: {min: 0.0001, max: 3, log: true}, optimizer: [sgd, adamw, rmsprop]}"
    baseline = {"batch_size": 32, "learning_rate": 0.3, "optimizer": "sgd"}
    decision = World(spec(baseline=baseline, search_space=space, seed=seed), curve).run()
    assert decision.answer is not None
    assert decision.answer.is_confirmed
    # With the known-good optimizer 181 is the largest.
    assert decision.answer.batch_size > 300
    assert decision.answer.parameters["optimizer"] != "sgd"


def test_ten_hyperparameters_of_which_one_matters():
    accuracy = hill()
    names = [f"x{i}" for i in range(9)]
    space = "learning_rate: {min: 0.001, max: 10, log: true}\n" + "\n".join(
        f"{name}: {{min: 0, max: 1}}" for name in names
    )
    baseline = {"batch_size": 32, "learning_rate": 0.1, **dict.fromkeys(names, 0.5)}
    world = World(spec(baseline=baseline, search_space=space), accuracy)
    reaches(world, largest(accuracy, 0.9), within=1.3)


def test_a_hyperparameter_that_the_job_leaves_to_its_script_stays_unset_in_the_baseline():
    accuracy = hill()
    space = "{learning_rate: {min: 0.001, max: 10, log: true}, momentum: {min: 0, max: 0.99}}"
    world = World(spec(search_space=space), accuracy)
    decision = world.run()
    assert "momentum" not in world.trials[0].suggestion.parameters
    assert decision.answer is not None


def test_a_length_that_the_baseline_shows_decides_as_one_that_the_user_sets():
    def tried(world: World) -> list[tuple[object, ...]]:
        world.run()
        after = [t for t in world.trials.values() if t.number > 0]
        return [(t.suggestion, t.outcome, len(t.measurements)) for t in after]

    assert tried(World(spec(run_length=None), hill())) == tried(World(spec(), hill()))


OTHER_OWNER: Mapping[str, ParameterValue] = {"batch_size": 32, "learning_rate": 0.05}


def alone_and_after(before: Curve) -> tuple[World, World]:
    """Tune a job alone, and after the study of another owner's job with the curve `before`."""
    earlier = World(spec(seed="1"), before)
    earlier.run()
    alone = World(spec(OTHER_OWNER), hill(top=0.95))
    later = World(spec(OTHER_OWNER), hill(top=0.95), earlier=(earlier.history,))
    for world in (alone, later):
        reaches(world, largest(world.curve, 0.9))
    return alone, later


@pytest.mark.parametrize(
    "narrower",
    [
        {"batch_size": "16..100"},
        {"search_space": "learning_rate: {min: 0.001, max: 0.2, log: true}"},
        {"search_space": "momentum: {min: 0.5, max: 0.99}"},
    ],
    ids=["batch sizes", "learning rates", "another hyperparameter"],
)
def test_what_the_annotations_no_longer_allow_is_not_the_answer(narrower: dict[str, str]):
    world = World(spec(), lambda b, p: hill()(b, {"learning_rate": 0.1, **p}))
    before = world.run().answer
    assert before is not None
    assert before.batch_size > 100
    assert before.parameters["learning_rate"] > 0.2
    own = {**BASELINE, "momentum": 0.9} if "momentum" in str(narrower) else BASELINE
    world.spec = spec(own, **narrower)
    answer = world.run().answer
    assert answer is not None
    assert answer.batch_size in world.spec.batch_size
    assert answer.parameters.keys() == world.spec.search_space.keys()
    assert answer.parameters.get("learning_rate", 0) <= 0.2 or "batch_size" in narrower


def test_a_study_that_starts_from_one_of_the_same_training_is_right_after_one_trial():
    # How much it trains in all varies: over ten seeds 0.2 to 1.0 times what it does alone, 0.6 in total.
    alone, later = alone_and_after(hill(top=0.95))
    leap = later.trials[1]
    assert leap.outcome in {Outcome.REACHED, Outcome.PROMISING}
    assert leap.suggestion.batch_size * 2**0.5 >= largest(later.curve, 0.9)
    assert alone.trials[1].suggestion.batch_size * 2**0.5 < largest(alone.curve, 0.9)
    assert later.trained < alone.trained


def test_a_study_that_starts_from_one_of_another_training_comes_to_no_harm():
    def rates_a_hundred_times_lower(batch_size: int, parameters: Mapping[str, ParameterValue]) -> np.ndarray:
        return hill(critical=32)(batch_size, {"learning_rate": 100 * float(parameters["learning_rate"])})

    alone, later = alone_and_after(rates_a_hundred_times_lower)
    assert later.trained < 1.5 * alone.trained


@pytest.mark.parametrize(
    "trains",
    [
        lambda batch_size: min(batch_size, 100),
        lambda batch_size: 2 ** int(math.log2(batch_size) + 1e-9),
        lambda batch_size: batch_size // 2 ** max(math.ceil(math.log2(batch_size / 100)), 0),
    ],
    ids=["a maximum", "powers of two", "half of it when memory runs out"],
)
@pytest.mark.parametrize("parallel", ["1", "4"])
def test_a_script_that_trains_a_smaller_batch_than_it_is_given_gets_no_answer(
    trains: Callable[[int], int], parallel: str
):
    world = World(spec(parallel_trials=parallel), hill(critical=150), trains=trains)
    decision = world.run()
    assert (decision.reason, decision.answer) == (Reason.NOT_WIRED, None)
    assert "smaller batch than it is given" in message(decision, world.spec)


def per_epoch(batch_size: int, parameters: Mapping[str, ParameterValue]) -> np.ndarray:
    """Return the curve of a script whose epoch has fewer updates the larger the batch is."""
    curve = hill(critical=150, progress=lambda t: 1 - np.exp(-8 * t * (64 / batch_size) ** 0.5))
    return curve(batch_size, parameters)


@pytest.mark.parametrize("parallel", ["1", "4"])
@pytest.mark.parametrize(
    "trains", [lambda _: 32, lambda batch_size: min(batch_size, 100)], ids=["the same always", "a maximum"]
)
def test_a_script_without_equal_digits_that_trains_a_smaller_batch_gets_no_confirmed_answer(
    trains: Callable[[int], int], parallel: str
):
    world = World(spec(parallel_trials=parallel), per_epoch, trains=trains, jitter=0.0005, prints_losses=True)
    decision = world.run()
    assert (decision.reason, decision.candidate) == (Reason.ANSWER_IN_DOUBT, None)
    assert decision.answer is not None
    assert not decision.answer.is_confirmed
    assert "cannot be confirmed: the first losses of trial" in message(decision, world.spec)


@pytest.mark.parametrize("prints_losses", [False, True])
def test_a_script_without_equal_digits_that_trains_its_batch_gets_a_confirmed_answer(prints_losses: bool):
    world = World(spec(), per_epoch, jitter=0.0005, unit="epoch", prints_losses=prints_losses)
    reaches(world, largest(per_epoch, 0.9))


@pytest.mark.parametrize("parallel", ["1", "4"])
def test_half_the_batch_with_nearly_the_same_values_gets_no_confirmed_answer_unless_digits_repeat(
    parallel: str,
):
    world = World(spec(parallel_trials=parallel), per_epoch, trains=lambda _: 32, jitter=0.0005, unit="epoch")
    decision = world.run()
    assert (decision.reason, decision.candidate) == (Reason.ANSWER_IN_DOUBT, None)
    assert decision.answer is not None
    assert not decision.answer.is_confirmed
    assert "unchanged and measured" in message(decision, world.spec)


@pytest.mark.parametrize(("trains", "is_warned_of"), [(lambda _: 32, True), (lambda size: size, False)])
def test_a_batch_whose_effect_is_not_larger_than_that_of_chance_is_warned_of(
    trains: Callable[[int], int], is_warned_of: bool
):
    """A script that does not use its seed is different in every run."""
    world = World(spec(confirmations="3"), per_epoch, trains=trains, jitter=0.02, unit="epoch")
    said = [warning for warning in world.run().warnings if "the difference may be chance" in warning]
    assert bool(said) is is_warned_of


def test_a_deterministic_training_on_which_the_batch_has_little_effect_is_confirmed_with_a_warning():
    world = World(spec(), hill(critical=1024, tolerance=0.0005), unit="epoch", step_noise=0.0)
    decision = world.run()
    assert decision.answer is not None
    assert decision.answer.is_confirmed
    assert any("the first values of trial" in warning for warning in decision.warnings)
    controls = [t for t in world.trials.values() if repeats_unchanged(t, world.trials.values())]
    assert len(controls) == 1


def repeats_unchanged(trial: Trial, trials: Iterable[Trial]) -> bool:
    """Return whether a trial is a check that changes nothing."""
    original = repeated_by(trial.suggestion, trials)
    return original is not None and setting(original) == setting(trial)


def test_a_batch_that_no_check_can_show_is_reported():
    def last_alone(batch_size, parameters):
        return hill()(batch_size, parameters)[-1:]

    decision = World(spec(run_length="1"), last_alone).run()
    assert decision.answer is not None
    assert decision.answer.is_confirmed
    assert any("nothing shows that the script trains a batch of" in said for said in decision.warnings)
    assert not any("nothing shows" in said for said in World(spec(), hill()).run().warnings)


def in_one_value(batch_size, parameters):
    """Return the curve of a script that is evaluated only once, at its end."""
    return hill(critical=150)(batch_size, parameters)[-1:]


def test_where_a_run_has_one_value_its_batch_is_checked_by_the_losses_of_the_training():
    world = World(spec(run_length="1"), in_one_value, prints_losses=True)
    decision = world.run()
    assert decision.answer is not None
    assert decision.answer.is_confirmed
    assert not any("nothing shows" in said for said in decision.warnings)
    checks = [t for t in world.trials.values() if t.suggestion.purpose is Purpose.CHECK]
    assert len(checks) > 1
    assert all(t.outcome is Outcome.DOMINATED and not t.measurements for t in checks)


def test_a_script_with_one_value_that_trains_a_smaller_batch_is_reported_by_the_losses_and_that_value():
    world = World(spec(run_length="1"), in_one_value, prints_losses=True, trains=lambda batch: min(batch, 50))
    decision = world.run()
    assert (decision.reason, decision.answer) == (Reason.NOT_WIRED, None)
    assert "smaller batch than it is given" in message(decision, world.spec)


def test_a_check_of_the_batch_is_stopped_where_its_curve_differs():
    world = World(spec(), hill())
    reaches(world, 173)
    trials = world.trials.values()
    checks = [t for t in trials if t.suggestion.purpose is Purpose.CHECK]
    assert {len(t.measurements) for t in checks if not repeats_unchanged(t, trials)} == {1}
    assert len(checks) <= 7
    assert all(t.outcome is Outcome.DOMINATED for t in checks)


def test_a_script_that_trains_with_another_learning_rate_than_the_answer_names_is_reported():
    world = World(spec(), lambda batch_size, _: hill()(batch_size, {"learning_rate": 0.15}))
    decision = world.run()
    assert decision.answer is not None
    assert decision.answer.is_confirmed
    told = [said for said in decision.warnings if "another learning_rate than it is given" in said]
    assert len(told) == 1
