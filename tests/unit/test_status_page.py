"""`deploy/STATUS.md` documents every name that the status, trials and Events can have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autotuner import keys
from autotuner.decide.decision import Phase, Reason
from autotuner.status import _REASONS
from autotuner.trial import Outcome, Purpose
from autotuner.wording import COMPARED, IN_DOUBT, STOPPED_SHORT

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "deploy" / "STATUS.md").read_text()
SOURCE = "\n".join(path.read_text() for path in (ROOT / "autotuner").rglob("*.py"))
EVENTS = {*_REASONS.values(), *re.findall(r'Event\("\w+", "(\w+)"', SOURCE)}
STATUS = {
    value.removeprefix(keys.STATUS_PREFIX)
    for value in vars(keys).values()
    if isinstance(value, str) and value.startswith(keys.STATUS_PREFIX) and value != keys.LEDGER_SUCCESSOR
} - {""}


@pytest.mark.parametrize(
    "name",
    sorted(
        {*Phase, *Reason, *Purpose, *Outcome, *EVENTS, *STATUS}
        | {text.replace(" ", "_") for text in (COMPARED, IN_DOUBT, STOPPED_SHORT)}
    ),
)
def test_every_name_is_documented(name: str):
    assert f"`{name}`" in PAGE


def test_every_phase_and_reason_of_the_page_exists():
    table = PAGE.partition("## Phases and reasons")[2].partition("## Trials")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("|")][2:]
    phases = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    reasons = {name for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    assert phases == set(Phase)
    assert reasons == set(Reason)
