"""What a scrape sees of one run and of many."""

import http.client

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from liquid_telemetry.spool import _launch

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def test_snapshot_is_served(exporter, trainer, snapshot, labels):
    job = trainer()
    job.publish(snapshot(loss=0.5, step=10, epoch=3))
    exporter.start()
    found = exporter.scrape()
    assert found["training_loss"] == {labels(model_name="CfC", epoch="3"): 0.5}
    assert found["training_batches_total"] == {labels(model_name="CfC", stage="train"): 10}
    buckets = found["training_batch_duration_seconds_bucket"]
    assert buckets[labels(model_name="CfC", stage="train", le="0.1")] == 10
    job.publish(snapshot(loss=0.25, step=20, epoch=4))
    assert exporter.scrape()["training_loss"] == {labels(model_name="CfC", epoch="4"): 0.25}


def test_second_run_of_a_model_has_a_slot(exporter, trainer, snapshot, labels):
    runs = [trainer(started=float(n)) for n in range(1, 4)]
    for n, run in enumerate(runs):
        run.publish(snapshot(loss=float(n)))
    trainer(model_name="LTC").publish(snapshot(model="LTC", loss=9.0))
    exporter.start()
    found = exporter.scrape()
    assert found["training_loss"] == {
        labels(model_name="CfC", epoch="0"): 0,
        labels(model_name="CfC", epoch="0", slot="1"): 1,
        labels(model_name="CfC", epoch="0", slot="2"): 2,
        labels(model_name="LTC", epoch="0"): 9,
    }
    assert set(found["training_active"]) == {
        labels(model_name="CfC"),
        labels(model_name="CfC", slot="1"),
        labels(model_name="CfC", slot="2"),
        labels(model_name="LTC"),
    }
    assert not any("slot" in dict(key) for key in found["training_jobs_started_total"])


def test_slots_are_used_again_and_survive_the_exporter(exporter, trainer, snapshot, labels, wait):
    first, second = trainer(started=1.0), trainer(started=2.0)
    exporter.start()
    exporter.scrape()
    first.kill()
    wait(lambda: exporter.scrape()["training_active"] == {labels(model_name="CfC", slot="1"): 1})
    exporter.kill()
    exporter.start()
    assert exporter.scrape()["training_active"] == {labels(model_name="CfC", slot="1"): 1}
    trainer(started=3.0)
    wait(lambda: labels(model_name="CfC") in exporter.scrape()["training_active"])
    assert set(exporter.scrape()["training_active"]) == {
        labels(model_name="CfC"),
        labels(model_name="CfC", slot="1"),
    }
    second.end("completed")


def test_totals_without_model_are_sums_over_all_runs(exporter, trainer, snapshot, labels, wait):
    first, second = trainer(), trainer(model_name="LTC")
    first.publish(snapshot(errors={"logs": 2}))
    second.publish(snapshot(model="LTC", errors={"logs": 3, "tracing": 1}))
    exporter.start()

    def errors(signal):
        return exporter.scrape()["telemetry_errors_total"].get(labels(signal=signal, reason="X"))

    assert (errors("logs"), errors("tracing")) == (5, 1)
    first.kill()
    wait(lambda: labels(model_name="CfC") not in exporter.scrape()["training_active"])
    assert errors("logs") == 5
    second.publish(snapshot(model="LTC", errors={"logs": 4, "tracing": 1}))
    assert errors("logs") == 6
    exporter.kill()
    exporter.start()
    assert (errors("logs"), errors("tracing")) == (6, 1)


def test_a_run_that_goes_on_later_is_not_added_twice(exporter, trainer, snapshot, labels, wait):
    keeper = trainer(model_name="LTC")
    run = trainer()
    run.publish(snapshot(errors={"logs": 2}))
    run.update(status="completed")
    run.release()
    exporter.start()
    wait(lambda: labels(model_name="CfC") not in exporter.scrape()["training_active"])
    run.take()
    run.update(stage="test")
    run.publish(snapshot(errors={"logs": 3}))
    found = exporter.scrape()
    assert found["telemetry_errors_total"][labels(signal="logs", reason="X")] == 3
    assert found["training_loss"] == {labels(model_name="CfC", epoch="0"): 0.5}
    assert exporter.jobs("completed", "CfC") == 1
    keeper.end("completed")


def test_gauges_without_model_are_sums_over_live_runs(exporter, trainer, snapshot, labels):
    first, second = trainer(), trainer(model_name="LTC")
    first.publish(snapshot(sums={"cuda_allocated": 100}))
    second.publish(snapshot(model="LTC", sums={"cuda_allocated": 20, "cuda_reserved": 5}))
    exporter.start()
    memory = exporter.scrape()["memory_usage_bytes"]
    assert memory[labels(component="cuda_allocated")] == 120
    assert memory[labels(component="cuda_reserved")] == 5
    first.kill()
    assert exporter.scrape()["memory_usage_bytes"][labels(component="cuda_allocated")] == 20


def test_a_devices_gauge_is_not_added_up(exporter, trainer, snapshot, labels):
    gauge = (
        '# TYPE liquid_nn_npu_utilization_percent gauge\nliquid_nn_npu_utilization_percent{{device="0"}} {}'
    )
    trainer().publish(snapshot(extra=gauge.format(60)))
    trainer(model_name="LTC").publish(snapshot(model="LTC", extra=gauge.format(50)))
    exporter.start()
    assert exporter.scrape()["npu_utilization_percent"] == {labels(device="0"): 60}


NVML = """
NVML_TEMPERATURE_GPU = 0
class NVMLError(Exception): pass
class Rates: gpu = 87
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetUtilizationRates(gpu): return Rates
def nvmlDeviceGetTemperature(gpu, sensor): return 61 + gpu
def nvmlDeviceGetPowerUsage(gpu):
    if gpu == 1: raise NVMLError("Not Supported")
    return 312500
"""


def test_gpus_are_read_by_the_exporter(exporter, trainer, labels, tmp_path, monkeypatch):
    (tmp_path / "pynvml.py").write_text(NVML)
    paths = [str(tmp_path), *_launch._import_paths()]
    monkeypatch.setattr(_launch, "_import_paths", lambda: paths)
    trainer()
    exporter.start()
    found = exporter.scrape()
    assert found["gpu_utilization_percent"] == {labels(device="0"): 87, labels(device="1"): 87}
    assert found["gpu_temperature_celsius"] == {labels(device="0"): 61, labels(device="1"): 62}
    assert found["gpu_power_watts"] == {labels(device="0"): 312.5}


@pytest.mark.parametrize(
    "nvml", ["raise ImportError", NVML.replace("nvmlInit(): pass", "nvmlInit(): raise NVMLError")]
)
def test_without_a_driver_there_are_no_gpus(nvml, exporter, trainer, labels, tmp_path, monkeypatch):
    (tmp_path / "pynvml.py").write_text(nvml)
    paths = [str(tmp_path), *_launch._import_paths()]
    monkeypatch.setattr(_launch, "_import_paths", lambda: paths)
    trainer()
    exporter.start()
    found = exporter.scrape()
    assert not [name for name in found if name.startswith("gpu_")]
    assert found["telemetry_errors_total"][labels(signal="exporter", reason="host")] == 0


def test_rank_zero_speaks_for_the_run_and_every_rank_for_itself(exporter, trainer, snapshot, labels):
    for rank in (0, 1):
        run = trainer(run_id="both", rank=rank)
        run.publish(snapshot(loss=float(rank), errors={"logs": 1}, sums={"cuda_allocated": 100}))
    exporter.start()
    found = exporter.scrape()
    assert found["training_loss"] == {labels(model_name="CfC", epoch="0"): 0}
    assert found["telemetry_errors_total"][labels(signal="logs", reason="X")] == 2
    assert found["memory_usage_bytes"][labels(component="cuda_allocated")] == 200


def test_host_is_sampled_once_for_all(exporter, trainer, labels):
    jobs = [trainer(), trainer(model_name="LTC")]
    jobs[0].fork(60)
    exporter.start()
    found = exporter.scrape()
    memory = {dict(key)["component"]: value for key, value in found["memory_usage_bytes"].items()}
    resident = sum(psutil.Process(job.pid).memory_info().rss for job in jobs)
    child = psutil.Process(jobs[0].pid).children()[0]
    assert memory["process"] == pytest.approx(resident, rel=0.1)
    assert memory["workers"] == pytest.approx(child.memory_info().rss, rel=0.1)
    assert 0 < memory["system"] < psutil.virtual_memory().total
    child.kill()


def test_each_core_has_a_value(exporter, trainer, wait):
    trainer()
    exporter.start()
    cores = wait(lambda: exporter.peek().get("cpu_utilization_percent"))
    assert [dict(key)["core"] for key in cores] == [str(core) for core in range(psutil.cpu_count())]
    assert all(0 <= value <= 100 for value in cores.values())


def test_a_run_cannot_speak_for_the_exporter(exporter, trainer, snapshot, labels):
    lie = (
        "# TYPE liquid_nn_training_active gauge\n"
        'liquid_nn_training_active{model_name="CfC"} 7\n'
        "# TYPE liquid_nn_training_jobs_failed counter\n"
        'liquid_nn_training_jobs_failed_total{model_name="CfC",reason="killed"} 7'
    )
    trainer().publish(snapshot(extra=lie))
    exporter.start()
    found = exporter.scrape()
    assert found["training_active"] == {labels(model_name="CfC"): 1}
    assert found["training_jobs_failed_total"][labels(model_name="CfC", reason="killed")] == 0


def test_two_runs_that_name_the_same_series_do_not_break_the_scrape(exporter, trainer, snapshot, labels):
    """A run may put another model's name on its samples; Prometheus refuses a scrape with a double."""
    trainer(model_name="A", started=1.0).publish(snapshot(model="same", loss=1.0))
    trainer(model_name="B", started=2.0).publish(snapshot(model="same", loss=2.0))
    exporter.start()
    assert list(exporter.scrape()["training_loss"]) == [labels(model_name="same", epoch="0")]


def test_families_of_two_types_do_not_break_the_scrape(exporter, trainer, snapshot):
    first = '# TYPE liquid_nn_custom gauge\nliquid_nn_custom{model_name="A"} 1'
    second = '# TYPE liquid_nn_custom unknown\nliquid_nn_custom{model_name="B"} 1'
    trainer(model_name="A").publish(snapshot(model="A", extra=first))
    trainer(model_name="B").publish(snapshot(model="B", extra=second))
    exporter.start()
    assert len(exporter.scrape()["custom"]) == 1


@pytest.mark.parametrize(
    "corrupt",
    [
        "",
        "liquid_nn_training_loss 1",
        "\x00" * 100,
        "# TYPE liquid_nn_x gauge\nliquid_nn_x{ 1\n# EOF\n",
        "# EOF\nx",
    ],
    ids=["empty", "no EOF", "binary", "syntax", "after EOF"],
)
def test_corrupt_snapshot_keeps_the_last_good_one(exporter, trainer, snapshot, labels, corrupt):
    job = trainer()
    job.publish(snapshot(loss=0.5))
    exporter.start()
    exporter.scrape()
    job.publish(corrupt)
    for _ in range(2):
        found = exporter.scrape()
        assert found["training_loss"] == {labels(model_name="CfC", epoch="0"): 0.5}
        assert found["telemetry_errors_total"][labels(signal="exporter", reason="snapshot")] == 1
    job.publish(snapshot(loss=0.25))
    assert exporter.scrape()["training_loss"] == {labels(model_name="CfC", epoch="0"): 0.25}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/plain", "text/plain; version=0.0.4"),
        ("application/json", "text/plain; version=0.0.4"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        (f"{OPENMETRICS},text/plain;version=0.0.4;q=0.5", "application/openmetrics-text; version=1.0.0"),
        (f"text/plain;version=0.0.4;q=0.9,{OPENMETRICS};q=0.5", "text/plain; version=0.0.4"),
        (f"{OPENMETRICS};q=0,*/*;q=0.1", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=abc", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;q=x", "text/plain; version=0.0.4"),
    ],
)
def test_format_is_negotiated(exporter, trainer, snapshot, accept, expected):
    trainer().publish(snapshot())
    exporter.start()
    status, headers, body = exporter.get("/metrics", headers={"Accept": accept} if accept else {})
    assert status == 200
    assert headers["Content-Type"].startswith(expected)
    exemplar = '# {span_id="def",trace_id="abc"} 0.05 1700000000.5'
    assert (exemplar in body) == ("openmetrics" in expected)
    assert body.endswith("# EOF\n") == ("openmetrics" in expected)


def test_openmetrics_is_valid(exporter, trainer, snapshot):
    trainer().publish(snapshot(errors={"logs": 1}, sums={"cuda_allocated": 1}))
    trainer().publish(snapshot())
    exporter.start()
    _, _, body = exporter.get("/metrics", headers={"Accept": OPENMETRICS})
    families = {family.name: family for family in text_string_to_metric_families(body)}
    bucket = next(
        sample
        for sample in families["liquid_nn_training_batch_duration_seconds"].samples
        if sample.labels.get("slot") and sample.labels.get("le") == "0.1"
    )
    assert bucket.exemplar.labels == {"trace_id": "abc", "span_id": "def"}


def test_gzip_when_accepted(exporter, trainer, snapshot):
    trainer().publish(snapshot())
    exporter.start()
    _, plain_headers, plain = exporter.get("/metrics")
    _, headers, zipped = exporter.get("/metrics", headers={"Accept-Encoding": "gzip"})
    assert (plain_headers["Content-Encoding"], headers["Content-Encoding"]) == (None, "gzip")
    assert int(headers["Content-Length"]) < len(plain) / 2
    assert "liquid_nn_training_loss" in zipped


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("gzip;q=0", None),
        ("br, x-gzip;q=0.5", "gzip"),
        ("GZIP", "gzip"),
        ("gzip;q=x", None),
        ("identity", None),
    ],
)
def test_encodings_are_weighed(exporter, trainer, accept, encoding):
    trainer()
    exporter.start()
    address = exporter.address
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    try:
        connection.request("GET", "/metrics", headers={"Accept-Encoding": accept})
        assert connection.getresponse().headers["Content-Encoding"] == encoding
    finally:
        connection.close()


def test_calls_are_counted_with_bounded_labels(exporter, trainer, labels):
    trainer()
    exporter.start()
    exporter.get("/live")
    exporter.get("/live", method="HEAD")
    exporter.get("/secret?x=1")
    exporter.get("/other/secret")
    exporter.get("/live", method="POST")
    exporter.get("/live", method="BREW")
    calls = exporter.scrape()["api_calls_total"]
    assert calls == {
        labels(endpoint="/live", method="GET", status="200"): 1,
        labels(endpoint="/live", method="HEAD", status="200"): 1,
        labels(endpoint="/live", method="POST", status="405"): 1,
        labels(endpoint="/live", method="other", status="405"): 1,
        labels(endpoint="other", method="GET", status="404"): 2,
    }
    exporter.kill()
    exporter.start()
    assert calls.items() <= exporter.scrape()["api_calls_total"].items(), "what a scrape has seen is on disk"
