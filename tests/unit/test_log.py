"""The controller's log lines: one JSON object a line, and nothing of the user's in a traceback."""

import io
import json
import logging
import subprocess
import sys

import pytest
import structlog

from autotuner.log import configure


@pytest.fixture(autouse=True)
def _configured_again():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def fail(form: str) -> str:
    stream = io.StringIO()
    configure("info", form, stream)
    password = "hunter2"  # a value, as a job's environment may hold it
    try:
        int(password)
    except ValueError:
        structlog.get_logger("controller").warning("reconcile_failed", exc_info=True)
    return stream.getvalue()


def test_a_traceback_tells_where_and_no_values():
    line = json.loads(fail("json"))
    assert line["event"] == "reconcile_failed"
    assert line["exception"][0]["frames"][-1]["name"] == "fail"
    assert "locals" not in line["exception"][0]["frames"][-1]


def test_nor_does_one_on_a_terminal():
    shown = fail("console")
    assert "in fail" in shown
    assert "password = " not in shown


def test_what_libraries_log_is_json_too():
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("somebody").error("it broke")
    assert json.loads(stream.getvalue())["event"] == "it broke"


def test_importing_the_search_leaves_the_logging_of_optuna_to_its_user():
    program = (
        "import logging, optuna\nbefore = optuna.logging.get_verbosity()\n"
        "from autotuner.search.sampler import FrontierSampler\n"
        "assert optuna.logging.get_verbosity() == before\n"
        "assert logging.getLogger('optuna._gp.batched_lbfgsb').level == logging.NOTSET\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
