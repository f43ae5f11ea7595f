"""The commands around `tune`: schema, version, report, and what they print where."""

from __future__ import annotations

import sys
from html.parser import HTMLParser

import pytest

from autotuner import __version__
from autotuner.spec.schema import annotation_schema
from autotuner.spec.tuning_spec import annotation_fields
from tests.end_to_end.programs import LEARNS, Place


def test_schema_prints_the_annotations_as_a_table_and_as_json(place: Place):
    shown = place.run("schema")
    assert shown.code == 0
    assert "\x1b" not in shown.out
    for key, _ in annotation_fields():
        assert key in shown.out
    assert place.run("schema", "--json").json == annotation_schema()


def test_a_failed_study_continues_after_a_retry(place: Place):
    # The program fails until its data is there: nothing of the job changes.
    program = "import pathlib; pathlib.Path('data').read_text()\n" + LEARNS
    file = place.write(program=program).name
    failed = place.run("tune", file)
    assert failed.code == 1
    assert "run `autotuner retry toy-tuning`" in failed.err
    (place.folder / "data").write_text("")
    assert place.run("tune", file).code == 1
    assert place.run("retry", "toy-tuning").code == 0
    assert place.run("tune", file).code == 0


def test_a_retry_of_nothing_says_what_to_name(place: Place):
    (place.folder / "toy-tuning").mkdir()
    ran = place.run("retry", "toy-tuning")
    assert ran.code == 1
    assert "not the folder of a" in ran.err


def test_the_version_is_that_of_the_package(place: Place):
    assert place.run("--version").out == f"autotuner {__version__}\n"


@pytest.mark.parametrize("command", ["retry", "status", "trials"])
def test_a_file_in_place_of_a_study_says_what_to_name(place: Place, command: str):
    ran = place.run(command, place.write().name)
    assert ran.code == 1
    assert "is a file: name the job in it, or the folder of its study" in ran.err


@pytest.mark.parametrize(
    "words", [[], ["tune"], ["--no-such-option"], ["no-such-command"], ["tune", "a", "b"]]
)
def test_a_command_that_does_not_exist_exits_with_2_and_shows_the_usage(place: Place, words: list[str]):
    ran = place.run(*words)
    assert ran.code == 2
    assert "Usage" in ran.out + ran.err


def test_the_report_is_one_page_that_a_parser_takes(place: Place):
    assert place.run("tune", place.write().name).code == 0
    ran = place.run("report", "toy-tuning", "--output", "page.html")
    assert (ran.code, ran.out) == (0, "wrote page.html\n")
    parser = HTMLParser()
    parser.feed((place.folder / "page.html").read_text(encoding="utf-8"))
    parser.close()
    refused = place.run("report", "toy-tuning", "--output", "no/such/folder/page.html")
    assert refused.code == 1
    assert "choose another --output" in refused.err


def test_trials_run_under_the_python_that_is_named(place: Place):
    mine = place.folder / "mine"
    mine.mkdir()
    (mine / "python").write_text(f'#!/bin/sh\necho under mine\nexec {sys.executable} "$@"\n')
    (mine / "python").chmod(0o755)
    file = place.write()
    ran = place.run("tune", file.name, "--python", "mine/python")
    assert ran.code == 0, ran.err
    (log,) = place.tuning.glob("logs/0/*.log")
    assert log.read_text().startswith("under mine\n")
    refused = place.run("tune", file.name, "--python", "none/python")
    assert refused.code == 2
    assert "--python is 'none/python': must be an interpreter" in refused.err
