"""Which sinks a run asks for, what each shows of the totals, and under whose name."""

import json

import pytest
from prometheus_client import CollectorRegistry
from tiny import LIGHTNING_NOISE, fit, only_run

from liquid_telemetry import PrometheusMetrics, Telemetry
from liquid_telemetry.exporter.ledger import Ledger
from liquid_telemetry.exporter.sinks.identity import identity
from liquid_telemetry.exporter.sinks.view import View
from liquid_telemetry.spool import find_sinks

RAISED = ("failed", "exception")


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ({}, {}, []),
        ({"pushgateway": "http://p:9091/"}, {}, [{"kind": "pushgateway", "to": "http://p:9091"}]),
        ({}, {"LIQUID_TELEMETRY_PUSHGATEWAY": "http://p"}, [{"kind": "pushgateway", "to": "http://p"}]),
        ({"textfile": "/d"}, {}, [{"kind": "textfile", "to": "/d"}]),
        ({"otlp_metrics": True}, {}, [{"kind": "otlp", "to": "http://localhost:4318/v1/metrics"}]),
        ({"otlp_metrics": "http://c"}, {}, [{"kind": "otlp", "to": "http://c/v1/metrics"}]),
        ({"otlp_metrics": "http://c/v1/metrics"}, {}, [{"kind": "otlp", "to": "http://c/v1/metrics"}]),
        ({}, {"LIQUID_TELEMETRY_OTLP_METRICS": "false"}, []),
        (
            {},
            {"LIQUID_TELEMETRY_OTLP_METRICS": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c/x"},
            [{"kind": "otlp", "to": "http://c/x/v1/metrics"}],
        ),
        (
            {"otlp_metrics": True},
            {
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m/own",
                "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "a=b",
            },
            [{"kind": "otlp", "to": "http://m/own", "headers": "a=b"}],
        ),
    ],
)
def test_what_is_asked_for(options, environment, expected):
    wanted = {"pushgateway": None, "textfile": None, "otlp_metrics": False, **options}
    assert find_sinks(**wanted, environment=environment) == expected


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"pushgateway": "p:9091"}, "pushgateway='p:9091': must be a URL such as 'http://localhost:9091'"),
        ({"pushgateway": "http://p:x"}, "pushgateway='http://p:x': must be a URL"),
        (
            {"otlp_metrics": "grpc://c"},
            "otlp_metrics='grpc://c': must be a URL such as 'http://localhost:4318'",
        ),
    ],
)
def test_unusable_option_is_refused_at_once(options, complaint):
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(")):
        Telemetry(**options)


def test_grpc_and_a_registry_are_refused(monkeypatch):
    with pytest.raises(
        ValueError, match="with pushgateway, textfile or otlp_metrics: the exporter process sends"
    ):
        PrometheusMetrics(textfile="x", registry=CollectorRegistry())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ValueError, match="with the protocol grpc: metrics are sent over HTTP"):
        PrometheusMetrics(otlp_metrics=True)
    PrometheusMetrics(otlp_metrics="http://localhost:4318")


@pytest.mark.filterwarnings(*LIGHTNING_NOISE)
def test_run_asks_by_its_record(tmp_path, monkeypatch, spool, exporter, wait):
    monkeypatch.setenv("LIQUID_TELEMETRY_PUSH", "0.5")
    monkeypatch.setenv("LIQUID_TELEMETRY_SINK_HOLD", "2.5")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sink").mkdir()
    fit(PrometheusMetrics(port=0, textfile="sink"), max_epochs=1)
    exporter.pids.add(wait(lambda: exporter.address).pid)
    (record,) = (json.loads(path.read_text()) for path in spool.glob("runs/*/0.json"))
    assert record["sinks"] == [{"kind": "textfile", "to": str(tmp_path / "sink")}]
    (path,) = wait(lambda: list((tmp_path / "sink").glob("*.prom")))
    wait(lambda: "liquid_nn_training_jobs_completed_total{exporter=" in path.read_text())
    assert only_run().run_id in path.read_text()
    wait(exporter.gone, timeout=40)
    assert not path.exists()


def test_each_value_stands_before_the_next():
    ledger = Ledger(hold=60)
    ledger.open("CfC")
    view, key = View(30, {}), RAISED

    def deliver(now):
        receipt = view.show(ledger, now)
        view.deliver(receipt, now)
        return receipt["CfC", key]

    ledger.add("CfC", key, 0)
    assert [deliver(now) for now in (1, 30, 30.9, 31, 32)] == [0, 0, 0, 1, 1]
    assert view.settled(ledger, "CfC")
    assert view.awaiting(ledger, 32, 300)
    assert not view.awaiting(ledger, 61, 300)
    ledger.add("CfC", key, 62)
    assert deliver(62) == 2, "an older job's end is shown at once"
    ledger.add("CfC", key, 63)
    ledger.add("CfC", key, 64)
    assert [deliver(now) for now in (65, 91.9, 92)] == [2, 2, 4]
    following = View(30, json.loads(json.dumps(view.dump())))
    ledger.add("CfC", key, 93)
    assert following.show(ledger, 93)["CfC", key] == 4


def test_view_holds_from_the_first_delivery_not_from_the_first_try():
    ledger = Ledger(hold=60)
    ledger.open("CfC")
    view = View(30, {})
    view.show(ledger, 0)
    ledger.add("CfC", RAISED, 1)
    ledger.reveal(100)
    assert view.show(ledger, 200)["CfC", RAISED] == 0
    view.deliver(view.show(ledger, 201), 201)
    assert [view.show(ledger, now)["CfC", RAISED] for now in (230, 231)] == [0, 1]


def test_identity_is_of_the_host_and_the_spool(tmp_path, spool):
    assert identity(spool) == identity(spool)
    assert identity(spool) != identity(tmp_path)
