"""The dashboard and the alerts speak of metrics that the controller has, in PromQL that parses."""

import json
import re

import promql_parser
import pytest
import yaml

from autotuner.controller.metrics import Metrics
from autotuner.controller.work_queue import LONGEST_DELAY
from autotuner.decide.decision import Phase
from autotuner.trial import Outcome
from tests.helm.chart import CHART, FULLNAME, find, one, refusal, render

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
EXPRESSIONS = [
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
    *(alert["expr"] for alert in ALERTS),
]
LABELS_OF_PROMETHEUS = {"namespace", "job", "pod", "le"}


def exported():
    """Return every series that the controller exports, by name, with its own label names."""
    metrics = Metrics()
    metrics.count_request("get", "200")
    return {
        sample.name: set(sample.labels) for family in metrics.registry.collect() for sample in family.samples
    }


def selectors(expression):
    """Yield each metric of an expression with the labels that it is selected by."""
    # Grafana puts a duration in place of its variables before Prometheus sees them.
    pending = [promql_parser.parse(re.sub(r"\$__(rate_interval|range)", "5m", expression))]
    while pending:
        node = pending.pop()
        if isinstance(node, promql_parser.VectorSelector):
            yield node.name, {matcher.name: matcher.value for matcher in node.matchers.matchers}
        for field in ("expr", "lhs", "rhs", "vector_selector"):
            child = getattr(node, field, None)
            if child is not None:
                pending.append(child)
        pending.extend(getattr(node, "args", None) or ())


@pytest.mark.parametrize(
    ("interval", "timeout"), [("5s", "10s"), ("1m30s", "91s"), ("500ms", "1s"), ("08s", "9s")]
)
def test_a_scrape_that_may_take_longer_than_its_interval_is_refused(interval, timeout):
    asked = {"enabled": True, "interval": interval, "scrapeTimeout": timeout}
    said = refusal(serviceMonitor=asked)
    assert f"serviceMonitor.scrapeTimeout is {timeout} and serviceMonitor.interval is {interval}: " in said
    assert not find(render(serviceMonitor={**asked, "enabled": False}), "ServiceMonitor")


@pytest.mark.parametrize(("interval", "timeout"), [("10s", "10s"), ("1m", "60s"), ("1h", "59m59s999ms")])
def test_a_scrape_may_take_as_long_as_its_interval(interval, timeout):
    asked = {"enabled": True, "interval": interval, "scrapeTimeout": timeout}
    (endpoint,) = one(render(serviceMonitor=asked), "ServiceMonitor")["spec"]["endpoints"]
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == (interval, timeout)


def test_a_single_job_that_fails_for_ever_raises_the_alert_and_a_short_outage_does_not():
    (alert,) = (alert for alert in ALERTS if alert["alert"] == "AutotunerReconcileErrors")
    minutes, limit = map(int, re.search(r"increase\(.*\[(\d+)m\]\)\) > (\d+)$", alert["expr"]).groups())
    assert minutes * 60 / LONGEST_DELAY - 1 > limit
    assert minutes < int(alert["for"].removesuffix("m"))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_no_expression_depends_on_how_prometheus_calls_the_job(expression):
    # It has another name with `nameOverride`, and where Prometheus has a scrape configuration of its own.
    assert not any("job" in labels for _, labels in selectors(expression))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_and_label_exists(expression):
    series = exported()
    found = list(selectors(expression))
    assert found
    for name, labels in found:
        assert name in series, name
        assert set(labels) <= series[name] | LABELS_OF_PROMETHEUS, name


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_phase_and_outcome_that_is_named_exists(expression):
    known = {"phase": {str(phase) for phase in Phase}, "outcome": {str(outcome) for outcome in Outcome}}
    for _, labels in selectors(expression):
        for label in labels.keys() & known.keys():
            assert set(labels[label].split("|")) <= known[label]


def test_every_metric_of_ours_is_on_the_dashboard():
    shown = {name for expression in EXPRESSIONS for name, _ in selectors(expression)}
    ours = {name for name in exported() if name.startswith("autotuner_")}
    by_products = re.compile(r"_created$|_(sum|count)$")
    assert {name for name in ours if not by_products.search(name)} <= shown


def test_panels_have_titles_and_numbers_of_their_own_and_do_not_overlap():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


def test_dashboard_arrives_whole():
    document = one(render(dashboard={"enabled": True}), "ConfigMap", f"{FULLNAME}-dashboard")
    assert json.loads(document["data"]["autotuner.json"]) == DASHBOARD
    assert document["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_alerts_arrive_as_they_are_written_braces_included():
    (group,) = one(render(prometheusRule={"enabled": True}), "PrometheusRule")["spec"]["groups"]
    assert group["rules"] == ALERTS
    assert any("{{ $value" in alert["annotations"]["summary"] for alert in ALERTS)


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    operating = (CHART.parents[1] / "deploy" / "OPERATING.md").read_text()
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"info", "warning", "critical"}
        assert alert["annotations"].keys() == {"summary", "description"}
        assert f"`{alert['alert']}`" in operating, alert["alert"]
