"""The controller's configuration: its sources, their order, and messages that say everything at once."""

import os
from pathlib import Path

import pytest
import yaml
from kubernetes.leaderelection.electionconfig import Config
from typer.testing import CliRunner

from autotuner.cli import app
from autotuner.controller.settings import ENV_PREFIX, ControllerSettings, settings
from autotuner.errors import InvalidConfiguration


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


def a_file(folder: Path, **content: object) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def mistakes_of(**flags: object) -> list[str]:
    with pytest.raises(InvalidConfiguration) as caught:
        ControllerSettings.load(**flags)
    return str(caught.value).splitlines()


def test_defaults_are_valid_and_frozen():
    loaded = ControllerSettings.load()
    assert loaded.namespaces == ()
    assert loaded.retry_seconds < loaded.renew_seconds < loaded.lease_seconds
    with pytest.raises(ValueError, match="frozen"):
        loaded.threads = 2


def test_flag_beats_environment_beats_file_beats_default(tmp_path, monkeypatch):
    path = a_file(tmp_path, threads=2, poll_seconds=2, log_level="debug")
    monkeypatch.setenv("AUTOTUNER_CONTROLLER_THREADS", "3")
    monkeypatch.setenv("AUTOTUNER_CONTROLLER_LOG_LEVEL", "error")
    loaded = ControllerSettings.load(config_file=path, threads=4)
    assert (loaded.threads, loaded.log_level, loaded.poll_seconds) == (4, "error", 2)
    assert loaded.http_port == 8080


def test_environment_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTUNER_CONTROLLER_CONFIG_FILE", str(a_file(tmp_path, threads=7)))
    assert ControllerSettings.load().threads == 7


def test_flag_that_was_not_given_leaves_the_value_alone(monkeypatch):
    monkeypatch.setenv("AUTOTUNER_CONTROLLER_THREADS", "3")
    assert ControllerSettings.load(threads=None).threads == 3


def test_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("AUTOTUNER_CONTROLLER_MAX_PARALLEL_TRIALS", "")
    assert ControllerSettings.load().max_parallel_trials is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("team-a", ("team-a",)), ("a, b,a,", ("a", "b"))],
)
def test_namespaces_in_the_environment_are_separated_by_commas(monkeypatch, text, expected):
    monkeypatch.setenv("AUTOTUNER_CONTROLLER_NAMESPACES", text)
    assert ControllerSettings.load().namespaces == expected


def test_hosts_are_compared_in_lower_case(monkeypatch):
    monkeypatch.setenv("AUTOTUNER_CONTROLLER_PAGES_HOSTS", "Tuner.example.com., tuner.example.com, tuner")
    assert ControllerSettings.load().pages_hosts == ("tuner.example.com", "tuner")


def test_trial_environment_is_not_the_daemons(monkeypatch):
    monkeypatch.setenv("AUTOTUNER_THREADS", "9")
    assert ControllerSettings.load().threads == 4


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("threads", "0", "must be at least 1"),
        ("threads", "many", "must be a whole number"),
        ("poll_seconds", "0", "must be above 0"),
        ("poll_seconds", "nan", "must be a finite number"),
        ("poll_seconds", "inf", "must be"),
        ("lease_seconds", "2.5", "must be a whole number"),
        ("renew_seconds", "0.5", "must be at least 1"),
        ("retry_seconds", "0.5", "must be at least 1"),
        ("max_parallel_trials", "0", "must be at least 1"),
        ("max_log_bytes", "1", "must be at least 65536"),
        ("namespaces", "Team_A", "lower-case"),
        ("namespaces", "x" * 64, "63"),
        ("lease_name", "-", "lower-case"),
        ("leader_election", "perhaps", "must be true or false"),
        ("http_port", "65536", "must be at most 65535"),
        ("pages_hosts", "https://tuner.example.com", "without a scheme, a port or a path"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("log_format", "xml", "'auto', 'json' or 'console'"),
    ],
)
def test_wrong_value_is_named_with_its_source_rule_and_an_example(monkeypatch, name, value, rule):
    variable = ENV_PREFIX + name.upper()
    monkeypatch.setenv(variable, value)
    (message,) = mistakes_of()
    assert message.startswith(f"{variable} is {value!r}: ")
    assert rule in message
    assert ", for example " in message


def test_every_mistake_is_told_at_once_each_with_its_source(tmp_path, monkeypatch):
    path = a_file(tmp_path, poll_seconds=-1, thread=3)
    monkeypatch.setenv("AUTOTUNER_CONTROLLER_HTTP_PORT", "0")
    messages = mistakes_of(config_file=path, log_level="loud")
    assert {message.split(" is ")[0] for message in messages} == {
        f"poll_seconds in {path}",
        f"thread in {path}",
        "AUTOTUNER_CONTROLLER_HTTP_PORT",
        "--log-level",
    }


def test_misspelt_key_of_the_file_suggests_the_right_one(tmp_path):
    (message,) = mistakes_of(config_file=a_file(tmp_path, max_paralel_trials=3))
    assert message.endswith(", for example max_parallel_trials")


def test_misspelt_variable_is_a_mistake(monkeypatch):
    monkeypatch.setenv("AUTOTUNER_CONTROLLER_MAX_PARALEL_TRIALS", "3")
    (message,) = mistakes_of()
    assert message.endswith(", for example AUTOTUNER_CONTROLLER_MAX_PARALLEL_TRIALS")


@pytest.mark.parametrize(
    "variable", ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8080_TCP_ADDR"]
)
def test_variables_of_a_service_of_the_same_name_are_no_settings(monkeypatch, variable):
    monkeypatch.setenv(ENV_PREFIX + variable, "tcp://10.0.0.1:8080")
    ControllerSettings.load()


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"lease_seconds": 20, "renew_seconds": 20}, "renew_seconds"),
        ({"lease_seconds": 10, "renew_seconds": 20}, "renew_seconds"),
        ({"lease_seconds": 5, "retry_seconds": 5}, "retry_seconds"),
        ({"renew_seconds": 5, "retry_seconds": 5}, "retry_seconds"),
        ({"renew_seconds": 6, "retry_seconds": 5}, "retry_seconds"),
    ],
)
def test_lease_times_must_be_in_order(values, name):
    (message,) = mistakes_of(**values)
    assert message.startswith(("--" + name.replace("_", "-"), name))
    assert "must be well below" in message


@pytest.mark.parametrize("lease", [2, 3, 5, 30, 86_400])
def test_the_other_times_follow_the_lease(lease):
    times = ControllerSettings.load(lease_seconds=lease)
    Config(object(), lease, times.renew_seconds, times.retry_seconds, lambda: None, lambda: None)


def test_the_times_of_the_default_lease():
    times = ControllerSettings.load()
    assert (times.lease_seconds, times.renew_seconds, times.retry_seconds) == (30, 20, 5)


def test_wrong_lease_time_is_not_told_twice():
    (message,) = mistakes_of(lease_seconds=-1)
    assert message.startswith("--lease-seconds")


def test_leader_election_needs_a_namespace_for_its_lease():
    (message,) = mistakes_of(leader_election=True)
    assert message.startswith("lease_namespace")
    assert ControllerSettings.load(leader_election=True, lease_namespace="here").leader_election


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("- threads", "a line each"),
        ("threads", "a line each"),
        ("1: 2", "a line each"),
        ("threads: [", "must be YAML"),
        ("\x00", "must be YAML"),
        (b"\xff\xfe\xff", "must be a file that can be read"),
    ],
)
def test_file_that_holds_no_settings_is_told_by_its_name(tmp_path, text, rule):
    path = tmp_path / "settings.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    messages = "\n".join(mistakes_of(config_file=path))
    assert str(path) in messages
    assert rule in messages


def test_missing_file_is_a_mistake(tmp_path):
    assert "must be a file that can be read" in "\n".join(mistakes_of(config_file=tmp_path / "none.yaml"))


def test_empty_file_leaves_the_defaults(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("# nothing yet\n")
    assert ControllerSettings.load(config_file=path) == ControllerSettings(config_file=path)


def test_times_that_the_model_takes_are_taken_by_the_clients_election():
    for lease, renew, retry in ((2, 1.5, 1), (30, 20, 5), (3, 2, 1.6)):
        times = ControllerSettings.load(lease_seconds=lease, renew_seconds=renew, retry_seconds=retry)
        Config(
            object(),
            times.lease_seconds,
            times.renew_seconds,
            times.retry_seconds,
            lambda: None,
            lambda: None,
        )


def test_every_setting_is_documented_and_its_example_is_valid_text():
    for setting in settings():
        assert setting.environment == ENV_PREFIX + setting.name.upper()
        assert setting.meaning, setting.name
        assert setting.default, setting.name
    assert [setting.name for setting in settings()] == list(ControllerSettings.model_fields)


def test_help_of_the_command_tells_every_setting_as_the_model_has_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    page = CliRunner().invoke(app, ["controller", "--help"]).output
    for setting in settings():
        assert f"--{setting.name.replace('_', '-')} " in page
        assert setting.environment in page
        assert setting.meaning in page


def test_command_refuses_wrong_flags_at_its_start_and_names_each():
    done = CliRunner().invoke(app, ["controller", "--threads", "0", "--log-level", "loud"])
    assert done.exit_code == 2
    assert "error: --threads is '0'" in done.stderr
    assert "error: --log-level is 'loud'" in done.stderr


def test_command_without_a_cluster_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["controller", "--http-port", "1", "--http-host", "127.0.0.1"])
    assert done.exit_code == 2
    assert "there is no cluster: this process is not in a pod" in done.stderr
