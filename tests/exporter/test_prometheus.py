"""A real Prometheus server finds the exporter, and its functions find the failures."""

import pytest

pytestmark = pytest.mark.server("prometheus")

FAILED = 'liquid_nn_training_jobs_failed_total{reason="killed"}'
RULES = """
groups:
- name: jobs
  rules:
  - alert: TrainingJobFailed
    expr: increase(liquid_nn_training_jobs_failed_total[10m]) > 0
  - alert: TrainingJobVanished
    expr: last_over_time(liquid_nn_training_active[10m]) == 1 unless liquid_nn_training_active
    for: 3s
"""


def firing(server):
    alerts = server.get("/api/v1/alerts")["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.yml"
    path.write_text(RULES)
    return path


def test_death_before_the_first_scrape_fires(exporter, trainer, prometheus, spool, rules, wait, labels):
    """Found through ``targets.json``; 0 is scraped before 1; the exporter then leaves."""
    trainer().kill()
    exporter.start()
    server = prometheus(targets=spool / "targets.json", rules=rules)
    wait(lambda: firing(server) == {"TrainingJobFailed"}, timeout=30)
    wait(exporter.gone, timeout=30)
    values = server.samples('liquid_nn_training_jobs_failed_total{reason="unknown"}')
    (values,) = values.values()
    assert values[0] == 0
    assert values == sorted(values)
    assert values[-1] == 1


def test_crash_loop_and_a_run_that_ends_well(
    exporter, trainer, prometheus, spool, rules, wait, labels, snapshot
):
    good = trainer(model_name="LTC")
    good.publish(snapshot(model="LTC", loss=0.5))
    exporter.start()
    server = prometheus(targets=spool / "targets.json", rules=rules)
    wait(lambda: server.query("liquid_nn_training_active"))
    for deaths in range(1, 5):
        job = trainer()
        exporter.peek()
        job.kill()
        wait(lambda: exporter.total("CfC", "failed/killed") == deaths)  # noqa: B023
    wait(lambda: server.query(FAILED).get(labels(model_name="CfC", reason="killed")) == 4)
    values = server.samples(FAILED)[labels(model_name="CfC", reason="killed")]
    assert values[0] == 0
    assert server.query("max without (epoch) (liquid_nn_training_loss)") == {labels(model_name="LTC"): 0.5}
    assert server.query("liquid_nn_training_active{slot!=''}") == {}
    buckets = "liquid_nn_training_batch_duration_seconds_bucket"
    exemplars = server.get("/api/v1/query_exemplars", query=buckets, start="1", end="2000000000")
    assert exemplars[0]["exemplars"][0]["labels"] == {"trace_id": "abc", "span_id": "def"}
    good.end("completed")
    wait(exporter.gone, timeout=30)
    activity = server.samples("liquid_nn_training_active")[labels(model_name="LTC")]
    assert activity[-1] == 0
    completed = server.samples("liquid_nn_training_jobs_completed_total")
    assert set(completed[labels(model_name="LTC")]) == {0, 1}
    assert "TrainingJobVanished" not in firing(server)
