"""The annotations' parser: what it takes, what it refuses, and in which words."""

from __future__ import annotations

import json
import sys
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner import keys
from autotuner.errors import InvalidJob, Mistake
from autotuner.spec import (
    Choice,
    FloatDimension,
    IntegerDimension,
    IntegerRange,
    Shape,
    TuningSpec,
    environment_value,
)
from autotuner.spec.schema import annotation_schema, annotation_table
from autotuner.spec.tuning_spec import MOST_AUTO_TRIALS, annotation_fields
from tests.builders import BASELINE, annotations, spec

NAMES = [key.removeprefix(keys.PREFIX).replace("-", "_") for key, _ in annotation_fields()]


def mistakes(baseline=BASELINE, **changed: str | None) -> tuple[Mistake, ...]:
    with pytest.raises(InvalidJob) as caught:
        spec(baseline, **changed)
    return caught.value.mistakes


def only_mistake(baseline=BASELINE, **changed: str | None) -> Mistake:
    found = mistakes(baseline, **changed)
    assert len(found) == 1, found
    return found[0]


# --- valid values -------------------------------------------------------------------------------------------


def test_a_job_with_every_annotation_parses():
    parsed = spec(
        target="eval/loss <= -1.5e-3",
        batch_size=" 16 .. 256 ",
        search_space="{lr: {min: 1e-5, max: 1, log: true}, layers: {min: 1, max: 8, type: int}, opt: [a, b]}",
        learning_rate="lr",
        micro_batch_size="4..8",
        workers="1..4",
        run_length="90.5",
        max_trials="7",
        max_gpu_hours="2.5",
        gpu_hour_price=" 2.50  EUR",
        parallel_trials="2",
        trial_timeout="1d2h3m4s",
        confirmations="5",
        sampler="gp",
        metric_pattern=r"top1 (?P<value>\S+) at (?P<step>\d+)",
        seed="42",
        paused="true",
        apply="true",
        baseline={"batch_size": "32", "lr": "0.1", "opt": "a", "unrelated": "x"},
    )
    assert (parsed.target.metric, parsed.target.comparison, parsed.target.threshold) == (
        "eval/loss",
        "<=",
        -0.0015,
    )
    assert parsed.batch_size == IntegerRange(minimum=16, maximum=256)
    assert parsed.search_space == {
        "lr": FloatDimension(minimum=1e-5, maximum=1, log=True),
        "layers": IntegerDimension(minimum=1, maximum=8),
        "opt": Choice(values=("a", "b")),
    }
    assert parsed.learning_rate == "lr"
    assert parsed.micro_batch_size == IntegerRange(minimum=4, maximum=8)
    assert parsed.workers == IntegerRange(minimum=1, maximum=4)
    assert parsed.run_length == 90.5
    assert (parsed.max_trials, parsed.max_gpu_hours, parsed.parallel_trials) == (7, 2.5, 2)
    assert (str(parsed.gpu_hour_price), parsed.gpu_hour_price.of(1000.5)) == ("2.5 EUR", "2,501.25 EUR")
    assert parsed.trial_timeout == timedelta(days=1, hours=2, minutes=3, seconds=4)
    assert (parsed.confirmations, parsed.sampler, parsed.seed) == (5, "gp", 42)
    assert parsed.paused
    assert parsed.apply
    assert parsed.baseline_batch_size == 32
    assert parsed.baseline_parameters == {"lr": 0.1, "opt": "a"}


def test_the_defaults_are_those_of_the_contract():
    parsed = spec()
    assert (parsed.max_trials, parsed.parallel_trials, parsed.confirmations, parsed.seed) == (100, 1, 3, 0)
    assert parsed.max_gpu_hours is parsed.trial_timeout is parsed.run_length is None
    assert parsed.workers is parsed.micro_batch_size is parsed.metric_pattern is None
    assert parsed.sampler == "frontier"
    assert not parsed.paused
    assert not parsed.apply
    assert parsed.learning_rate == "learning_rate"


def test_trials_at_once_are_a_number_or_auto_which_has_a_limit():
    assert (spec(parallel_trials=" auto ").parallel_trials, spec(parallel_trials="3").parallel_trials) == (
        "auto",
        3,
    )
    assert spec(parallel_trials="auto").most_parallel_trials == MOST_AUTO_TRIALS
    assert spec(parallel_trials="3").most_parallel_trials == 3


def test_without_a_search_space_the_learning_rate_is_tuned_around_its_baseline():
    parsed = spec(search_space=None, baseline={"batch_size": "32", "lr": "0.1"})
    assert parsed.learning_rate == "lr"
    dimension = parsed.search_space["lr"]
    assert isinstance(dimension, FloatDimension)
    assert dimension.log
    # Linear scaling to the largest batch asks for 8 times the baseline's rate: that lies well within.
    assert dimension.minimum < 0.1
    assert dimension.maximum > 0.8


def test_annotations_outside_of_the_prefix_are_passed_over():
    foreign = {"kubectl.kubernetes.io/x": "{", "status.autotuner.dev/phase": "Done", "autotuner.devil/x": "1"}
    parsed = TuningSpec.from_annotations({**annotations(), **foreign}, baseline=BASELINE)
    assert parsed == spec()


def test_a_spec_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        spec().max_trials = 3  # type: ignore[misc]


@pytest.mark.parametrize("text", ["1e-3", "0.001", "0.0010", "1E-3"])
def test_a_baseline_names_a_numeric_choice_however_it_is_written(text):
    parsed = spec(
        search_space="learning_rate: {min: 0.01, max: 10, log: true}\nwarmup: [0.001, 0.01]",
        baseline={**BASELINE, "warmup": text},
    )
    assert parsed.baseline_parameters["warmup"] == 0.001


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (0.1, "0.1"),
        (1e-05, "1e-05"),
        (3, "3"),
        (3.0, "3.0"),
        ("lars", "lars"),
    ],
)
def test_the_environment_carries_values_as_a_script_reads_them(value, text):
    assert environment_value(value) == text


def test_processes_count_masters_and_workers():
    assert Shape(masters=1, workers=3, processes_per_replica=8).processes == 32


# --- targets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "value", "is_met"),
    [
        ("accuracy >= 0.9", 0.9, True),
        ("accuracy >= 0.9", 0.8999, False),
        ("loss <= 0.1", 0.1, True),
        ("loss <= 0.1", 0.11, False),
        # What float32 makes of the threshold: 94 right answers of 100, as a fraction and in percent.
        ("accuracy >= 0.94", 0.9399999976158142, True),
        ("accuracy >= 94", 93.99999976158142, True),
        ("loss <= 0.1", 0.10000000149011612, True),
        ("accuracy >= 0.94", 0.9399999, False),
        ("loss <= 0.1", 0.1000001, False),
        ("reward >= -0.1", -0.10000000149011612, True),
        ("reward >= -0.1", -0.1000001, False),
        ("accuracy >= 0.9", float("nan"), False),
        ("loss <= 0.1", float("nan"), False),
        ("accuracy >= 0.9", float("inf"), False),
        ("loss <= 0.1", float("-inf"), False),
    ],
)
def test_a_target_is_met_at_its_threshold_and_never_by_what_a_diverged_run_reports(target, value, is_met):
    assert spec(target=target).target.is_met(value) is is_met


# --- mistakes -----------------------------------------------------------------------------------------------

WRONG = {
    "samples": ["", "0", "-1", "1.5", "1e6", "99999999999999999999", "7"],
    "processes_per_replica": ["", "0", "-1", "1.5", "auto", "10001", "9999999999"],
    "target": [
        "",
        "accuracy",
        "93%",
        "accuracy > 0.9",
        "accuracy == 0.9",
        "accuracy >= nan",
        "accuracy >= inf",
        "accuracy >= 0.9 extra",
        ">= 0.9",
        "*accuracy >= 0.9",
        "accuracy >= 1e999",
        "a" * 101 + " >= 1",
    ],
    "batch_size": [
        "",
        "256",
        "256..16",
        "0..16",
        "-1..16",
        "1.5..3",
        "16..99999999999",
        "16-256",
        "a..b",
        "1..2..3",
    ],
    "search_space": [
        "",
        "lr",
        "[]",
        "{}",
        "3",
        "- lr",
        "lr: 3",
        "lr: {min: 1}",
        "lr: {min: 2, max: 1}",
        "lr: {min: 1, max: 1}",
        "lr: {min: 0, max: 1, log: true}",
        "lr: {min: 1, max: 2, scale: log}",
        "lr: {min: 1, max: 2, type: double}",
        "lr: {min: 1, max: 2, type: [float]}",
        "lr: {min: 1, max: 2, log: 'yes please'}",
        "lr: {min: .nan, max: 1}",
        "lr: {min: 1, max: .inf}",
        "lr: {min: true, max: 3}",
        "lr: {min: 0.5, max: 2, type: int}",
        "lr: {min: 1, max: 1e10, type: int}",
        "lr: {min: -1e308, max: 1e308}",
        "lr: {min: 1e-300, max: 1, log: true}",
        "lr: []",
        "lr: [a, a]",
        "lr: [1, 1.0]",
        "lr: [[1]]",
        "lr: [null]",
        "lr: [.nan]",
        "LR: [1]",
        "l-r: [1]",
        "1lr: [1]",
        "? [a]\n: [1]",
        "batch_size: [1]",
        "seed: [1]",
        "lr: [1]\nlr: [2]",
        "lr: {min: 1, max: 2, max: 3}",
        "lr: &a [1]\nmomentum: *a",
        'lr: ["a\\0b"]',
        'lr: ["\\ud800"]',
        'lr: ["\\e[2J"]',
        "lr: [" + "x" * 300 + "]",
        "\t",
        "lr: !!python/object/apply:os.system [id]",
    ],
    "learning_rate": ["", "LR", "l r", "momentum", "batch_size"],
    "micro_batch_size": ["", "8", "8..4", "0..4"],
    "workers": ["", "two", "4..2"],
    "run_length": ["", "0", "-1", "nan", "inf", "ninety"],
    "max_trials": ["", "0", "-1", "1.5", "many", "10001", "1e3"],
    "max_gpu_hours": ["", "0", "-2", "nan", "inf", "1h"],
    "gpu_hour_price": [
        "",
        "2.50",
        "USD",
        "0 USD",
        "-1 USD",
        "1e3 USD",
        "2.50 usd",
        "2.50USD",
        "inf USD",
        "2,5 EUR",
    ],
    "parallel_trials": ["", "0", "257", "Auto", "auto 4", "all"],
    "trial_timeout": ["", "0", "0s", "6", "h", "-1h", "1h 30m", "30m1h"],
    "confirmations": ["", "0", "-3", "101"],
    "sampler": ["", "grid", "GP"],
    "metric_pattern": [
        "",
        "accuracy",
        "(",
        "(a)(b)",
        "(?P<step>1)(?P<other>2)",
        "(a)\\1",
        "(?=a)(b)",
        "(" + "a" * 600 + ")",
    ],
    "start_from": ["", "Resnet", "a,", "a, a", "a,b,c,d,e", "../a", "a b"],
    "queue": ["", "Team-A", "a/b", "-a", "a" * 64],
    "log_format": ["", "yaml", "auto, json"],
    "retried_at": ["", "yesterday", "2026-11-25T20:00:00", "20:00"],
    "seed": ["", "-1", "1.5", "x"],
    "paused": ["", "yes", "on", "2", "tRUE", "01"],
    "apply": ["", "no", "off", "-1", "true false", "Patch"],
    "apply_as": ["", "Large", "-a", "a" * 51, "1a", "a/b"],
}


def test_every_annotation_has_wrong_values_here():
    assert set(WRONG) == set(NAMES)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in WRONG for text in WRONG[name]])
def test_a_wrong_value_is_reported_with_key_value_rule_and_example(name, text):
    found = [m for m in mistakes(**{name: text}) if m.key == keys.PREFIX + name.replace("_", "-")]
    assert len(found) == 1
    assert found[0].value == text
    assert found[0].rule
    assert found[0].example


@pytest.mark.parametrize("name", NAMES)
def test_the_example_in_every_message_is_valid(name):
    example = annotation_schema()["properties"][keys.PREFIX + name.replace("_", "-")]["examples"][0]
    spec({**BASELINE, "batch_size": "256"}, **{"batch_size": "16..256", name: example})


def test_samples_below_the_jobs_own_batch_size_are_the_mistake():
    mistake = only_mistake({**BASELINE, "batch_size": "32"}, batch_size="16..1200", samples="20")
    assert (mistake.key, mistake.value, mistake.example) == ("autotuner.dev/samples", "20", "32")
    assert "the job's own batch size (32)" in mistake.rule


def test_all_mistakes_are_reported_at_once():
    found = mistakes(
        target="93%", batch_size="big", max_trials="0", paused="yes", serch_space="x", baseline={}
    )
    told = {mistake.key.removeprefix(keys.PREFIX) for mistake in found}
    assert told == {"target", "batch-size", "max-trials", "paused", "serch-space", "env AUTOTUNER_BATCH_SIZE"}


def test_an_unknown_annotation_under_the_prefix_is_reported_with_the_known_ones():
    mistake = only_mistake(max_trails="3")
    assert mistake.key == "autotuner.dev/max-trails"
    assert "max-trials" in mistake.rule


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("max-trails", "max-trials"),
        ("max_trials", "max-trials"),
        ("serch-space", "search-space"),
        ("target-metric", "target"),
        ("batchsize", "batch-size"),
        ("Paused", "paused"),
        ("x" * 5000, ""),
    ],
)
def test_an_unknown_annotation_suggests_the_nearest_name(written: str, meant: str):
    with pytest.raises(InvalidJob) as caught:
        TuningSpec.from_annotations({**annotations(), keys.PREFIX + written: "3"}, baseline=BASELINE)
    (mistake,) = caught.value.mistakes
    assert mistake.example.startswith(keys.PREFIX + meant)
    assert str(mistake).endswith(f", for example {mistake.example}")


@pytest.mark.parametrize("name", [name for name in WRONG if name != "search_space"])
def test_a_message_has_key_value_rule_and_example_in_this_order(name: str):
    text = WRONG[name][-1]
    (mistake,) = [m for m in mistakes(**{name: text}) if m.key == keys.PREFIX + name.replace("_", "-")]
    assert mistake.rule.startswith("must ")
    shown = text if len(text) <= 80 else text[:80] + "…"
    assert str(mistake) == f"{mistake.key} is {shown!r}: {mistake.rule}, for example {mistake.example}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("true", "True", "TRUE", "1", " true ")),
        *((text, False) for text in ("false", "False", "FALSE", "0")),
    ],
)
def test_booleans_are_read_as_people_and_templates_write_them(text: str, value: bool):
    assert spec(paused=text).paused is value


def test_a_search_space_tells_all_of_its_mistakes_at_once():
    space = "LR: [1]\nmomentum: {min: 2, max: 1}\nlr: {min: 0, max: 1}\nopt: [a, a]\ndecay: 3"
    rule = only_mistake(search_space=space).rule
    for said in (
        "'LR'",
        "momentum: min must be less",
        "opt must have each choice only once",
        "decay must be",
    ):
        assert said in rule


@pytest.mark.parametrize(
    ("choices", "values"),
    [
        ("[off, cosine]", ("off", "cosine")),
        ("[yes, no, on]", ("yes", "no", "on")),
        ("[1:2, 190:20:30]", ("1:2", "190:20:30")),
        ("[010, 0o10]", (10, 8)),
        ("[1_000]", ("1_000",)),
        ("[2001-01-01]", ("2001-01-01",)),
        ("[1e-3, .5, 1.]", (0.001, 0.5, 1.0)),
        ("[true, False]", (True, False)),
        ("['1', \"true\"]", ("1", "true")),
    ],
)
def test_choices_are_read_by_yaml_1_2(choices: str, values: tuple[object, ...]):
    parsed = spec(search_space=f"lr: {{min: 0.1, max: 1}}\nkind: {choices}").search_space["kind"]
    assert isinstance(parsed, Choice)
    assert list(map(repr, parsed.values)) == list(map(repr, values))


def test_an_underscore_in_a_key_is_a_mistake_too():
    with pytest.raises(InvalidJob):
        TuningSpec.from_annotations({**annotations(), "autotuner.dev/max_trials": "3"}, baseline=BASELINE)


@pytest.mark.parametrize("name", ["target", "batch_size"])
def test_a_required_annotation_that_is_missing_is_reported(name):
    assert only_mistake(**{name: None}).rule == "must be given"


@pytest.mark.parametrize(
    "baseline",
    [
        {"learning_rate": "0.1"},
        {"batch_size": "", "learning_rate": "0.1"},
        {"batch_size": "many", "learning_rate": "0.1"},
        {"batch_size": "0", "learning_rate": "0.1"},
        {"batch_size": "32.5", "learning_rate": "0.1"},
        {"batch_size": "nan", "learning_rate": "0.1"},
        {"batch_size": 10**400, "learning_rate": "0.1"},
    ],
)
def test_a_baseline_without_a_batch_size_is_a_mistake(baseline):
    assert only_mistake(baseline).key == "env AUTOTUNER_BATCH_SIZE"


def test_a_baseline_outside_of_the_batch_sizes_is_a_mistake_whose_example_widens_them():
    mistake = only_mistake({**BASELINE, "batch_size": "8"})
    assert "8..256" in str(mistake)


def test_a_baseline_outside_of_the_search_space_is_a_mistake():
    assert only_mistake({**BASELINE, "learning_rate": "50"}).key == "env AUTOTUNER_LEARNING_RATE"


def test_without_search_space_and_learning_rate_the_message_says_what_to_add():
    mistake = only_mistake({"batch_size": "32"}, search_space=None)
    assert mistake.key == "env AUTOTUNER_LEARNING_RATE"
    assert "search-space" in mistake.rule


@pytest.mark.parametrize("space", ["lr: [0.1, 1]", "lr: {min: 1, max: 9, type: int}", "lr: {min: 0, max: 1}"])
def test_a_learning_rate_must_be_a_positive_range(space):
    assert only_mistake({"batch_size": "32"}, search_space=space).key == "autotuner.dev/search-space"


@pytest.mark.parametrize(
    ("space", "rate"),
    [
        ("{max_lr: RANGE, momentum: {min: 0, max: 0.9}}", "max_lr"),
        ("{blr: RANGE, min_lr: RANGE}", "blr"),
        ("{lr0: RANGE, lrf: {min: 0.01, max: 1}}", "lr0"),
        ("{base_learning_rate: RANGE, lr_decay: RANGE, warmup_lr: RANGE}", "base_learning_rate"),
        ("{lr: RANGE, max_lr: RANGE}", "lr"),
        ("{actor_lr: RANGE, critic_lr: RANGE}", None),
        ("{max_lr: [0.1, 1]}", None),
        ("{color: RANGE, log_lr: RANGE}", None),
    ],
)
def test_the_learning_rate_is_known_by_its_name_if_there_is_only_one(space, rate):
    text = space.replace("RANGE", "{min: 0.01, max: 1, log: true}")
    assert spec({"batch_size": "32"}, search_space=text).learning_rate == rate


def test_without_a_search_space_a_learning_rate_of_another_name_is_tuned():
    parsed = spec(search_space=None, baseline={"batch_size": "32", "peak_lr": "0.1", "min_lr": "0.001"})
    assert parsed.learning_rate == "peak_lr"
    assert list(parsed.search_space) == ["peak_lr"]


def test_a_message_shows_a_bounded_piece_of_a_wrong_value():
    for name in NAMES:
        for text in (
            "\x1b[2J" + "x" * 16_000,
            "y" * 20_000,
            '"' + "z" * 15_000 + '": [1]',
            "a >= " + "9" * 16_000,
        ):
            for mistake in mistakes(**{name: text}):
                assert len(str(mistake)) < 1500
                assert "\x1b" not in str(mistake)


# --- whatever the strings -----------------------------------------------------------------------------------

YAML_PIECES = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "-",
        "?",
        "&a",
        "*a",
        "!!int",
        "!!bool",
        "!!float",
        "!!timestamp",
        "!!binary",
        "!!set",
        "!!str",
        "<<",
        "|",
        ">",
        "'",
        '"',
        "\\",
        "#",
        "%",
        "@",
        "`",
        "\n",
        " ",
        "  ",
        "min",
        "max",
        "log",
        "type",
        "int",
        "lr",
        "x",
        "0",
        "1",
        "1e-5",
        "-1",
        ".inf",
        ".nan",
        "0x1F",
        "2001-99-99",
        "2001-01-01",
        "=",
        "~",
        "null",
        "true",
        "\t",
        "\0",
        "\ud800",
        "\x85",
        "\ufeff",
        "…",
    ]
)
HOSTILE = st.one_of(
    st.text(max_size=200),
    st.text(st.characters(), max_size=60),
    st.lists(YAML_PIECES, max_size=25).map("".join),
    st.builds(lambda piece, count: piece * count, YAML_PIECES, st.integers(1, 200)),
    st.floats().map(str),
    st.integers().map(str),
)


@given(
    st.dictionaries(st.sampled_from(NAMES), HOSTILE, max_size=6),
    st.dictionaries(HOSTILE, HOSTILE, max_size=3),
)
def test_whatever_the_strings_the_parser_raises_nothing_but_invalid_job(changed, baseline):
    try:
        spec({**BASELINE, **baseline}, **changed)
    except InvalidJob as error:
        told = [(mistake.key, mistake.rule) for mistake in error.mistakes]
    else:
        return
    assert told
    assert all(key and rule for key, rule in told)


@given(HOSTILE)
def test_whatever_the_search_space_the_parser_raises_nothing_but_invalid_job(text):
    try:
        parsed = spec(search_space=text)
    except InvalidJob:
        return
    for dimension in parsed.search_space.values():
        assert (
            not isinstance(dimension, FloatDimension | IntegerDimension)
            or dimension.minimum < dimension.maximum
        )


@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c]",
        "a: &a [*a]",
        "[" * 2_000,
        "{a: " * 4_000,
        "- " * 8_000,
        "? " * 8_000,
        "lr: [" + "1, " * 5_000 + "]",
        "\n".join(f"p{i}: [1]" for i in range(1_500)),
        "lr: " + "9" * 16_000,
        "lr: {min: 0x" + "f" * 16_000 + ", max: 1}",
    ],
    ids=lambda bomb: bomb[:12],
)
def test_a_yaml_bomb_is_a_mistake_like_any_other(bomb):
    found = [m for m in mistakes(search_space=bomb) if m.key == "autotuner.dev/search-space"]
    assert len(found) == 1


NAME = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True).filter(
    lambda n: n not in keys.RESERVED_PARAMETERS
)
BOUND = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: round(x, 6))
RANGES = st.tuples(BOUND, BOUND).filter(lambda pair: pair[0] < pair[1])
INTEGER_RANGES = st.tuples(st.integers(-1000, 1000), st.integers(1, 1000)).map(lambda p: (p[0], p[0] + p[1]))
CHOICES = st.lists(
    st.one_of(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.integers(-99, 99)),
    min_size=1,
    max_size=5,
    unique=True,
)


@given(
    st.dictionaries(
        NAME,
        st.one_of(
            RANGES.map(lambda p: ({"min": p[0], "max": p[1]}, FloatDimension(minimum=p[0], maximum=p[1]))),
            INTEGER_RANGES.map(
                lambda p: (
                    {"min": p[0], "max": p[1], "type": "int"},
                    IntegerDimension(minimum=p[0], maximum=p[1]),
                )
            ),
            CHOICES.map(lambda values: (values, Choice(values=tuple(values)))),
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 2**30),
    st.integers(0, 2**29),
)
def test_a_valid_spec_round_trips(space, low, width):
    # JSON is YAML, but `true` and the like in it are not strings in YAML's eyes: json quotes them.
    parsed = spec(
        search_space=json.dumps({name: written for name, (written, _) in space.items()}),
        batch_size=f"{low}..{low + width}",
        baseline={"batch_size": str(low)},
    )
    assert parsed.search_space == {name: dimension for name, (_, dimension) in space.items()}
    assert parsed.batch_size == IntegerRange(minimum=low, maximum=low + width)
    assert low in parsed.batch_size
    assert low + width + 1 not in parsed.batch_size


# --- the documentation that is made from the same source ----------------------------------------------------


def test_table_and_schema_hold_every_annotation():
    expected = [keys.PREFIX + name.replace("_", "-") for name in NAMES]
    assert [row["key"] for row in annotation_table()] == expected
    assert list(annotation_schema()["properties"]) == expected
    assert annotation_schema()["required"] == ["autotuner.dev/target", "autotuner.dev/batch-size"]
    assert all(all(row.values()) for row in annotation_table())


def test_the_sampler_gp_without_torch_is_a_mistake_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    assert "pip install 'autotuner[train]'" in only_mistake(sampler="gp").rule
    assert spec(sampler="tpe").sampler == "tpe"


def test_the_table_says_that_a_trial_is_limited_as_its_job_is():
    (row,) = [row for row in annotation_table() if row["key"] == "autotuner.dev/trial-timeout"]
    assert "activeDeadlineSeconds" in row["default"]
