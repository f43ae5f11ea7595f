"""Interrupted at any moment, and run again: the same answer, nothing lost, nothing repeated, nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.programs import LEARNS, Place, kill, until

COUNTED = LEARNS + "\nopen(f\"ran-{os.environ['AUTOTUNER_TRIAL']}\", 'a').write('x')\n"
"""Leaves a mark for each run that came to its own end."""

STUBBORN = """
import os, signal, subprocess, sys, time
child = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child])
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
# A grandchild in a session of its own whose parent is gone, as a controller makes itself one.
subprocess.run(["sh", "-c", f"setsid {sys.executable} -c '{child}' & exit 0"])
open("ready", "w").close()
time.sleep(600)
"""
"""Starts children that ignore SIGTERM, leave their session, or lose their parent, and waits."""


def answer_of(place: Place, file: str) -> dict[str, object]:
    ran = place.run("tune", file, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, object] = ran.json
    # What it cost differs from run to run.
    return {key: value for key, value in found.items() if key != "gpu_hours"}


def test_killed_at_random_moments_and_run_again_it_gives_the_same_answer(place: Place, tmp_path_factory):
    asked = {"batch_size": "16..64"}
    undisturbed = Place(tmp_path_factory.mktemp("undisturbed"))
    expected = answer_of(undisturbed, undisturbed.write(COUNTED, asked=asked).name)

    place.environment = {"PACE": "0.1"}
    file = place.write(COUNTED, asked=asked)
    moment = random.Random(1)
    recorded: dict[str, str] = {}
    for _ in range(3):
        process = place.start("tune", file.name, "--json")
        # Some time into the trial after the one that was just recorded.
        until(partial(_has_gone_on, place, process, len(recorded)), "a trial's end")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment.uniform(0, 0.4))
        kill(process)
        # No finished trial is lost or changed, whenever the kill came.
        assert recorded.items() <= place.ledger().items()
        recorded = place.ledger()
    assert answer_of(place, file.name) == expected
    assert recorded.items() <= place.ledger().items()
    # A trial that was recorded ran once; numbers and their settings are those of the undisturbed tuning.
    for name, text in place.ledger().items():
        assert json.loads(text)["suggestion"] == json.loads(undisturbed.ledger()[name])["suggestion"]
    assert list(place.ledger()) == list(undisturbed.ledger())
    until(lambda: not place.processes(), "the end of all processes")


def _has_gone_on(place: Place, process: subprocess.Popen[str], known: int) -> bool:
    return process.poll() is not None or len(place.ledger()) > known


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_the_tuner_ends_every_process_of_its_trials(place: Place, end: signal.Signals):
    process = place.start("tune", place.write(STUBBORN).name)
    until((place.folder / "ready").exists, "the trial's children")
    assert len(place.processes()) >= 6  # tuner, supervisor, program, and three children
    process.send_signal(end)
    out, err = process.communicate(timeout=60)
    until(lambda: not place.processes(), "the end of all processes")
    if end in {signal.SIGINT, signal.SIGTERM}:
        assert process.returncode == 130, (out, err)
        assert "interrupted" in err
        assert "Traceback" not in err
    assert not place.ledger()
    shown = place.run("status", place.tuning.name, "--json").json
    assert (shown["phase"], shown["reason"], shown["trials"]) == ("Paused", "Interrupted", {"total": 0})


def test_a_second_interrupt_does_not_claim_that_what_still_ends_is_stopped(place: Place):
    process = place.start("tune", place.write(STUBBORN).name)
    until((place.folder / "ready").exists, "the trial's children")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    until(lambda: "running trials end within 5 seconds" in process.stderr.readline(), "the first words")
    process.send_signal(signal.SIGINT)
    # Not communicate(), which would miss what the lines above have read ahead.
    err = process.stderr.read()
    process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "all processes are stopped" in err
    assert not place.processes()


def test_a_supervisor_that_is_asked_to_end_takes_its_processes_with_it_and_the_trial_runs_again(place: Place):
    once = "import os, sys, time\nif not os.path.exists('ready'):\n    exec(open('stubborn.py').read())\n"
    (place.folder / "stubborn.py").write_text(STUBBORN)
    process = place.start("tune", place.write(once + LEARNS).name, "--json")
    until((place.folder / "ready").exists, "the trial's children")
    before = [pid for pid in place.processes() if pid != process.pid]
    (supervisor,) = [pid for pid in before if b"supervisor.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(supervisor, signal.SIGTERM)
    out, err = process.communicate(timeout=110)
    assert process.returncode == 0, err
    assert not set(before) & set(place.processes())
    first, second = place.trials()[:2]
    assert first["outcome"] == "lost"
    assert (second["purpose"], second["seed"]) == (first["purpose"], first["seed"])
    assert json.loads(out)["confirmed"] == 1


def test_a_trial_that_ended_while_no_tuner_ran_is_recorded_and_not_repeated(place: Place):
    file = place.write(COUNTED, asked={"max_trials": "1"})
    assert place.run("tune", file.name).code == 3
    # As if the tuner had been killed between the trial's end and its record.
    (entry,) = (place.tuning / "ledger").glob("trial-*.json")
    entry.unlink()
    (place.tuning / "status.json").unlink()
    (place.tuning / "logs" / "0").rename(place.tuning / "trials" / "0")
    assert place.run("tune", file.name).code == 3
    assert (place.folder / "ran-0").read_text() == "x"
    assert [trial["outcome"] for trial in place.trials()] == ["reached"]


def test_a_record_that_was_cut_short_costs_its_trial_and_not_the_tuning(place: Place):
    file = place.write(COUNTED)
    expected = answer_of(place, file.name)
    last = max((place.tuning / "ledger").glob("trial-*.json"))
    last.write_text(last.read_text()[:40])
    (place.tuning / "status.json").unlink()
    assert answer_of(place, file.name) == expected
    assert (place.folder / "ran-0").read_text() == "x"
