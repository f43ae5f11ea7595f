"""The page of a study is self-contained, and treats all text of users and programs as text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from autotuner import keys
from autotuner.backends.base import Study
from autotuner.decide.decision import Answer, Decision, Facts, Phase, Reason
from autotuner.report.figures import LOOKS
from autotuner.report.page import render
from autotuner.report.terminal import answer_line, answer_lines, ending
from autotuner.status import describe
from autotuner.trial import Measurement, Outcome, Purpose
from autotuner.wording import outcome_now
from tests.builders import NOON, annotations, job, spec, suggestion, trial

VOID = {"meta", "br", "img", "link", "hr", "input"}
IMPLIED = {"tr", "td", "th", "thead", "tbody", "p", "dt", "dd"}
"""Elements whose end HTML lets one leave out."""


class Page(HTMLParser):
    """A page as a browser reads it: elements, their attributes and text, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not [tag for tag in self._open if tag not in IMPLIED]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open[-1] != tag:
            assert self._open[-1] in IMPLIED, f"</{tag}> closes <{self._open[-1]}>"
            self._open.pop()
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


ANSWER = Answer(128, {"learning_rate": 0.3}, 3, 3, 0.93, 0.06, 61.2, Reason.LARGER_UNLIKELY)


def tuning(trials=(), found=ANSWER, *, asked=None, **status: str) -> Study:
    said = {
        keys.PHASE: "Done",
        keys.MESSAGE: "three of three",
        **({} if found is None else {keys.ANSWER: json.dumps(found.as_json())}),
        **{keys.STATUS_PREFIX + name: value for name, value in status.items()},
    }
    read = job(asked=asked or annotations())
    return Study(replace(read, annotations={**read.annotations, **said}), list(trials))


def some_trials():
    confirming = suggestion(2, batch_size=128, parameters={"learning_rate": 0.3}, purpose=Purpose.CONFIRM)
    return [
        trial(0),
        *(trial(n, outcome=outcome, values=[0.3, 0.6]) for n, outcome in enumerate(Outcome, start=10)),
        trial(2, tried=confirming, extras={"samples_per_second": 900}),
        trial(3, values=[], outcome=Outcome.FAILED, started_at=None, ended_at=None, message="exit code 1"),
    ]


@pytest.mark.parametrize("found", [ANSWER, None])
def test_the_page_tells_what_the_status_warns_of(found):
    said = "batch size 128: 3 of 3 reached it; the script does not use AUTOTUNER_SEED"
    assert said in Page(render(tuning(some_trials(), found, message=said), NOON)).text


def test_the_page_tells_answer_evidence_and_every_trial():
    page = Page(render(tuning(some_trials()), NOON))
    for said in (
        "largest batch size 128",
        "learning_rate 0.3",
        "3 of 3",
        "0.06",
        "a larger batch is unlikely",
        "trial 2 reached",
        "exit code 1",
        *(str(outcome).replace("_", " ") for outcome in Outcome),
    ):
        assert said in page.text
    assert [tag for tag, _ in page.elements].count("svg") == 4
    assert [tag for tag, _ in page.elements].count("tr") == 1 + len(some_trials())


@pytest.mark.parametrize(("confirmed", "said"), [(3, "128"), (1, "128 (not confirmed)")])
def test_an_answer_that_is_not_confirmed_is_marked_in_page_and_terminal(confirmed: int, said: str):
    found = replace(ANSWER, confirmed=confirmed)
    page = Page(render(tuning(some_trials(), found), NOON))
    assert f"largest batch size {said}\n" in page.text
    assert answer_line(found).startswith(f"largest batch size {said} with")
    assert answer_lines(found, spec(), some_trials(), 1.0)[0].startswith(f"largest batch size {said} with")


@pytest.mark.parametrize(
    ("most", "which"), [(1024, "a batch half a doubling larger"), (150, "the largest allowed batch, 150,")]
)
def test_the_page_names_the_larger_batch_that_its_probability_is_about(most: int, which: str):
    page = Page(render(tuning(asked=annotations(batch_size=f"16..{most}")), NOON))
    assert f"probability that {which} meets the target" in page.text


def test_a_value_in_doubt_is_not_shown_as_one_that_meets_the_target():
    met = ("td", {"class": "number met"})
    in_doubt = replace(trial(0), doubt="a fraction or a percentage")
    shown = [met in Page(render(tuning([one], None), NOON)).elements for one in (trial(0), in_doubt)]
    assert shown == [True, False]


def test_a_check_that_was_stopped_is_shown_as_compared():
    check = trial(7, values=[0.5], outcome=Outcome.DOMINATED, tried=suggestion(7, purpose=Purpose.CHECK))
    assert outcome_now(check, spec()) == "compared"
    assert outcome_now(trial(7, values=[0.5], outcome=Outcome.DOMINATED), spec()) == "dominated"


def test_a_running_trial_has_a_row_and_a_curve():
    text = render(tuning([trial(0), trial(1, values=[0.5, 0.7], outcome=None)], None), NOON)
    assert "</span>running\n" in text[text.index("<tbody>") :]
    assert ">running</text>" in text


def test_a_page_is_loaded_again_only_if_it_is_asked_to_be():
    once, live = (render(tuning(some_trials()), NOON, refresh=refresh) for refresh in (None, 15))
    assert "refresh" not in once
    assert ("meta", {"http-equiv": "refresh", "content": "15"}) in Page(live).elements


@pytest.mark.parametrize(
    ("target", "recorded", "shown", "met"),
    [
        ("accuracy >= 0.9", Outcome.REACHED, "reached", True),
        ("accuracy >= 0.99", Outcome.REACHED, "stopped short", False),
        ("accuracy >= 0.99", Outcome.MISSED, "missed", False),
        ("accuracy >= 0.99", Outcome.HOPELESS, "hopeless", False),
        ("accuracy >= 0.9", Outcome.MISSED, "reached", True),
        ("accuracy >= 0.9", Outcome.HOPELESS, "reached", True),
        ("accuracy >= 0.9", Outcome.FAILED, "failed", True),
    ],
)
def test_whether_a_run_met_the_target_is_judged_by_the_current_target(target, recorded, shown, met):
    run, asked = trial(7, values=[0.5, 0.95], outcome=recorded), spec(target=target)
    study = tuning([run], None, asked=annotations(target=target))
    text = render(study, NOON)
    assert ('class="number met"' in text) is met
    row = text[text.index("<tbody>") :]
    assert f"</span>{shown}\n" in row
    assert f'background: {LOOKS[shown][0]}"' in row
    assert f">{shown}</text>" in text
    assert ending(run, asked) == f"{shown} at accuracy 0.95"
    decision = Decision(Phase.SEARCHING, Reason.SEARCHING, Facts())
    counts = json.loads(describe(decision, asked, [run], "").annotations[keys.TRIALS])
    assert counts == {"total": 1, shown.replace(" ", "_"): 1}


@pytest.mark.parametrize(
    ("target", "value", "said"),
    [
        ("accuracy >= 0.9", 0.89998, "missed at accuracy 0.89998"),
        ("accuracy >= 0.9", 0.90004, "reached at accuracy 0.9"),
        ("loss <= 0.3", 0.300004, "missed at loss 0.300004"),
        ("loss <= 0.3", 0.28366, "reached at loss 0.2837"),
        ("loss <= 0.3", 0.3000001, "missed at loss 0.3000001"),
    ],
)
def test_a_value_is_not_rounded_to_one_on_the_other_side_of_the_target(target, value, said):
    outcome = Outcome.REACHED if said.startswith("reached") else Outcome.MISSED
    assert ending(trial(values=[value], outcome=outcome), spec(target=target)) == said


def test_what_was_said_of_a_run_when_it_was_stopped_is_not_told_of_what_it_printed_since():
    """Its log went on until its processes had ended, and then it had met the target."""
    said = "reaches accuracy >= 0.9 with probability 0.03 only"
    run = trial(7, values=[0.5, 0.95], outcome=Outcome.HOPELESS, message=said)
    assert ending(run, spec()) == f"reached at accuracy 0.95 (when it was stopped: {said})"
    assert f"when it was stopped: {said.replace('>', '&gt;')}" in render(tuning([run], None), NOON)
    assert (
        ending(replace(run, measurements=run.measurements[:1]), spec())
        == f"hopeless at accuracy 0.5 ({said})"
    )


def test_a_whole_run_that_met_an_easier_target_has_missed():
    run, asked = trial(0, is_complete=True), spec(target="accuracy >= 0.99")
    assert outcome_now(run, asked) == "missed"
    assert outcome_now(replace(run, doubt="two values"), asked) == "in doubt"


def test_one_point_outside_is_one_and_not_at_the_targets_label():
    runs = [trial(n, values=[value]) for n, value in enumerate([0.01, 0.9, 0.91, 0.92, 0.93, 0.94])]
    (note,) = re.findall(r"<text[^>]*>[^<]*outside</text>", render(tuning(runs), NOON))
    assert note.endswith(">1 point outside</text>")
    assert "text-anchor: end" in note


def test_the_page_fetches_and_runs_nothing():
    page = Page(render(tuning(some_trials()), NOON))
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "action", "data"}:
                assert (value or "").startswith("#"), (tag, name, value)
            if name == "style":
                assert "url(" not in (value or "").replace("url(#", "")
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policy or "")


def test_each_figure_is_well_formed_svg():
    text = render(tuning(some_trials()), NOON)
    pieces = text.split("<svg")[1:]
    assert len(pieces) == 4
    for piece in pieces:
        picture = ET.fromstring("<svg" + piece[: piece.index("</svg>") + len("</svg>")])
        assert picture.tag.endswith("svg")


HOSTILE = [
    "<script>alert(1)</script>",
    "</table></main><h1>gone",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{1}{0}$ $",
    "\x00\x1b[2J\x07\x85\ufffe",
    "\ud800 half a pair",
    "]]> <!-- &nbsp; &#0;",
    "x" * 10_000,
]


@pytest.mark.parametrize("is_answered", [True, False])
def test_text_of_programs_and_users_is_escaped(is_answered: bool):
    asked = annotations(search_space="learning_rate: {min: 0.01, max: 10, log: true}\nopt: [a, b]")

    def page(texts: list[str]) -> tuple[str, Page]:
        answer = Answer(128, dict(enumerate(texts)), 1, 3, None, None, 1.0, None) if is_answered else None
        trials = [
            trial(number, tried=suggestion(number, parameters={"opt": text}), message=text)
            for number, text in enumerate(texts)
        ]
        html = render(tuning(trials, answer, asked=asked, message="".join(texts), phase="".join(texts)), NOON)
        return html, Page(html)

    html, hostile = page(HOSTILE)
    _, plain = page(["plain"] * len(HOSTILE))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert html.encode("utf-8")
    assert not any(ord(character) < 32 and character not in "\n\t" for character in html)
    assert all(text in hostile.text for text in HOSTILE if text.isprintable())


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{",
        "null",
        "[]",
        "[" * 100_000,
        "{}",
        json.dumps({**ANSWER.as_json(), "batch_size": "many"}),
        json.dumps({**ANSWER.as_json(), "batch_size": float("inf")}),
        json.dumps({**ANSWER.as_json(), "parameters": [["a", 1]]}),
        json.dumps({**ANSWER.as_json(), "parameters": {"a": {}}}),
        json.dumps({**ANSWER.as_json(), "reason": "for fun"}),
        json.dumps({**ANSWER.as_json(), "metric": "good"}),
    ],
    ids=lambda text: text[:20],
)
def test_an_answer_that_somebody_has_edited_is_no_answer(answer: str):
    assert Answer.from_text(answer) is None


def test_a_page_about_an_edited_answer_says_that_there_is_none():
    assert "no answer" in render(tuning([trial()], None, answer="[" * 100_000), NOON)


def test_an_answer_round_trips():
    assert Answer.from_text(json.dumps(ANSWER.as_json())) == ANSWER


def test_the_page_says_what_the_trials_cost_in_money_if_a_gpu_hour_has_a_price():
    trials = [trial(number, values=[0.5], outcome=Outcome.MISSED, devices=8) for number in range(3)]
    hours = sum(each.gpu_hours(NOON) for each in trials)
    assert hours > 0
    priced = annotations(**{"gpu-hour-price": "2.50 EUR"})
    assert f"{2.5 * hours:,.2f} EUR" in Page(render(tuning(trials, asked=priced), NOON)).text
    assert "EUR" not in Page(render(tuning(trials), NOON)).text


def test_a_tuning_without_trials_has_a_page():
    assert "no answer yet" in Page(render(tuning([], None, phase="Searching"), NOON)).text


@pytest.mark.parametrize(
    ("values", "target"),
    [
        ([float("nan"), float("inf"), float("-inf")], "accuracy >= 0.9"),
        ([1e308, -1e308, 0.5], "accuracy <= -1e30"),
        ([5e-324, 0.0], "accuracy >= 0"),
        ([-1e30, 1e30], "accuracy >= 0.9"),
    ],
)
def test_whatever_was_measured_can_be_drawn(values, target):
    run = trial(values=values, outcome=Outcome.MISSED)
    assert "svg" in Page(render(tuning([run], asked=annotations(target=target)), NOON)).tags


def test_whatever_step_a_script_counts_can_be_drawn():
    steps = (0.0, -1.0, 1e300, -1e308)
    run = trial(measurements=tuple(Measurement(step, 0.5) for step in steps))
    assert "svg" in Page(render(tuning([run]), NOON)).tags


def test_throughput_has_a_line_for_each_number_of_processes_and_nothing_drawn_without():
    def reporting(number: int, devices: int, throughput: float):
        return trial(number, devices=devices, extras={"samples_per_second": throughput})

    assert "Scaling efficiency" not in render(tuning([trial(0), reporting(1, 1, 0)]), NOON)
    trials = [
        reporting(0, 1, 900),
        reporting(1, 4, 3000),
        reporting(2, 4, 3100),
        reporting(3, 4, 1e308),
    ]
    page = Page(render(tuning(trials), NOON))
    assert "Scaling efficiency" in page.text
    assert "samples per second and process" in page.text
    assert "1 process\n" in page.text
    assert "4 processes" in page.text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.9001, 0.95, 1e6])
def test_the_target_is_in_the_picture_where_every_trial_lies_beyond_it(value):
    trials = [trial(number, values=[value]) for number in range(4)]
    assert "target >= 0.9" in Page(render(tuning(trials, None), NOON)).text
