"""Jobs end in every way; each is counted once, and its counter is seen to rise."""

import contextlib
import os
import signal

import pytest


def seen(exporter, metric, reason=None, model="CfC", scrapes=4):
    """What consecutive scrapes see of one counter."""
    return [exporter.jobs(metric, model, reason) for _ in range(scrapes)]


def test_completed_job_is_counted_once(exporter, trainer):
    job = trainer(status="starting")
    exporter.start()
    assert exporter.jobs("started", "CfC") == 0
    job.update(status="running")
    assert seen(exporter, "started", scrapes=2) == [1, 1]
    job.end("completed")
    assert seen(exporter, "completed", scrapes=3) == [1, 1, 1]


@pytest.mark.parametrize(
    ("end", "metric", "reason"),
    [
        (lambda job: job.kill(), "failed", "killed"),
        (lambda job: job.crash(3), "failed", "exited"),
        (lambda job: job.end("failed", reason="exception"), "failed", "exception"),
        (lambda job: job.end("failed", reason="nonfinite"), "failed", "nonfinite"),
        (lambda job: job.end("failed", reason="a novel reason"), "failed", "unknown"),
        (lambda job: job.end("interrupted", reason="user"), "interrupted", "user"),
        (lambda job: job.end("interrupted", reason="terminated"), "interrupted", "terminated"),
    ],
    ids=["SIGKILL", "_exit", "exception", "nonfinite", "other reason", "Ctrl-C", "SIGTERM"],
)
def test_end_is_counted_by_reason(exporter, trainer, wait, end, metric, reason):
    job = trainer()
    exporter.start()
    assert exporter.jobs(metric, "CfC", reason) == 0
    end(job)
    wait(lambda: exporter.counters["totals"]["CfC"][f"{metric}/{reason}"] == [1, 1])
    assert seen(exporter, metric, reason) == [1] * 4
    totals = exporter.counters["totals"]["CfC"]
    assert {key: value[0] for key, value in totals.items() if value[0]} == {
        "started/": 1,
        f"{metric}/{reason}": 1,
    }


def test_death_before_the_first_scrape_is_seen_to_rise(exporter, trainer, wait):
    trainer(status="starting").kill()
    exporter.start()
    wait(lambda: exporter.total("CfC", "failed/unknown") == 1)
    assert exporter.peek()["training_jobs_failed_total"][("model_name", "CfC"), ("reason", "unknown")] == 0
    assert seen(exporter, "failed", "unknown", scrapes=3) == [0, 1, 1]


def test_a_person_does_not_reveal_new_totals(exporter, trainer, wait):
    job = trainer()
    exporter.start()
    job.kill()
    wait(lambda: exporter.total("CfC", "failed/killed") == 1)
    assert [exporter.jobs("failed", "CfC", "killed", headers={}) for _ in range(3)] == [0, 0, 0]
    assert seen(exporter, "failed", "killed", scrapes=2) == [0, 1]


def test_hold_ends_without_any_scrape(exporter, trainer, wait, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_HOLD", "0.5")
    trainer().kill()
    exporter.start()
    wait(lambda: exporter.jobs("failed", "CfC", "unknown", headers={}) == 1)


def test_every_reason_is_there_at_zero(exporter, trainer):
    trainer()
    exporter.start()
    found = exporter.scrape()
    assert {dict(labels)["reason"]: value for labels, value in found["training_jobs_failed_total"].items()} == {
        "exception": 0, "out_of_memory": 0, "killed": 0, "crashed": 0, "exited": 0, "stalled": 0, "nonfinite": 0,
        "unknown": 0,
    }  # fmt: skip
    assert {dict(labels)["reason"] for labels in found["training_jobs_interrupted_total"]} == {
        "user",
        "terminated",
    }


def test_crash_loop_counts_up(exporter, trainer, wait):
    """Four deaths, one after the other, before anybody scrapes."""
    for deaths in range(1, 5):
        job = trainer()
        exporter.start()
        exporter.peek()
        job.kill()
        wait(lambda: exporter.total("CfC", "failed/killed") == deaths)  # noqa: B023
    assert set(exporter.peek()["training_active"]) == {(("model_name", "CfC"),)}, "no slot in a crash loop"
    assert seen(exporter, "failed", "killed", scrapes=3) == [0, 4, 4]


def test_totals_go_on_in_the_next_exporter(exporter, trainer, wait):
    for _ in range(2):
        job = trainer()
        exporter.start()
        exporter.scrape()
        job.kill()
        wait(lambda: _scraped_until_gone(exporter))
    trainer()
    exporter.start()
    assert exporter.jobs("failed", "CfC", "killed") == 2


def _scraped_until_gone(exporter):
    with contextlib.suppress(OSError, AttributeError):  # it may leave at any moment
        exporter.scrape()
    return exporter.gone()


@pytest.mark.parametrize("first", [0, 1])
def test_two_ranks_are_one_job(exporter, trainer, wait, first):
    ranks = [trainer(run_id="both", rank=rank) for rank in (0, 1)]
    exporter.start()
    exporter.scrape()
    ranks[first].kill()
    wait(lambda: exporter.total("CfC", "failed/killed") == 1)
    ranks[1 - first].end("failed", reason="exception")
    assert seen(exporter, "failed", "killed", scrapes=3) == [1, 1, 1]
    assert exporter.counters["totals"]["CfC"]["failed/exception"] == [0, 0]
    assert exporter.jobs("started", "CfC") == 1


def test_ctrl_c_is_no_failure_although_the_other_rank_is_killed(exporter, trainer, wait):
    ranks = [trainer(run_id="both", rank=rank) for rank in (0, 1)]
    exporter.start()
    exporter.scrape()
    ranks[0].update(status="interrupted", reason="user")
    ranks[1].kill()
    ranks[0].close()
    wait(lambda: exporter.total("CfC", "interrupted/user") == 1)
    assert exporter.jobs("failed", "CfC", "killed") == 0
    assert exporter.jobs("interrupted", "CfC", "user") == 1


def test_completed_only_when_every_rank_is(exporter, trainer, wait):
    ranks = [trainer(run_id="both", rank=rank) for rank in (0, 1)]
    exporter.start()
    exporter.scrape()
    ranks[0].end("completed")
    assert seen(exporter, "completed", scrapes=2) == [0, 0]
    ranks[1].end("completed")
    assert seen(exporter, "completed", scrapes=2) == [1, 1]


def test_death_is_seen_although_a_forked_child_lives_on(exporter, trainer, wait):
    job = trainer()
    exporter.start()
    exporter.scrape()
    job.fork(30)
    job.kill()
    wait(lambda: exporter.jobs("failed", "CfC", "killed") == 1, timeout=10)


def test_a_tuners_run_is_not_counted(exporter, trainer):
    trainer(status="starting").end("tuned")
    trainer().end("completed")
    exporter.start()
    exporter.scrape()
    assert seen(exporter, "started", scrapes=2) == [1, 1]
    assert seen(exporter, "completed", scrapes=2) == [1, 1]


def test_validate_alone_is_shown_but_no_job(exporter, trainer, snapshot, labels):
    run = trainer(job=False, stage="validation")
    run.publish(snapshot())
    exporter.start()
    found = exporter.scrape()
    assert found["training_loss"] == {labels(model_name="CfC", epoch="0"): 0.5}
    assert "training_active" not in found
    run.kill()
    for _ in range(2):
        assert exporter.jobs("started", "CfC") == exporter.jobs("failed", "CfC", "killed") == 0


def test_test_after_fit_continues_the_run(exporter, trainer, snapshot, labels):
    run = trainer()
    exporter.start()
    exporter.scrape()
    run.update(status="completed")
    assert exporter.jobs("completed", "CfC") == 1
    run.release()
    run.take()
    run.update(stage="test")
    run.publish(snapshot(loss=0.25))
    for _ in range(4):
        found = exporter.scrape()
    assert found["training_loss"] == {labels(model_name="CfC", epoch="0"): 0.25}
    assert found["training_active"] == {labels(model_name="CfC"): 0}
    run.kill()
    assert exporter.jobs("completed", "CfC", headers={}) == 1  # of scrapes it would leave after the second
    assert exporter.jobs("started", "CfC", headers={}) == 1
    assert exporter.jobs("failed", "CfC", "killed", headers={}) == 0


def test_state_and_activity(exporter, trainer, labels):
    job = trainer(status="starting")
    exporter.start()
    states = []
    for status in ("starting", "running", "completed"):
        job.update(status=status)
        found = exporter.scrape()
        one = [dict(key)["state"] for key, value in found["training_job_state"].items() if value == 1]
        states.append((*one, found["training_active"][labels(model_name="CfC")]))
    assert states == [("starting", 1), ("running", 1), ("completed", 0)]


def test_end_at_zero_is_scraped_before_the_series_go(exporter, trainer, labels, wait):
    other = trainer(model_name="LTC")
    job = trainer()
    exporter.start()
    exporter.scrape()
    job.kill()
    scrapes = []
    wait(
        lambda: (
            scrapes.append(exporter.scrape())
            or labels(model_name="CfC") not in scrapes[-1]["training_active"]
        )
    )
    activity = [found["training_active"].get(labels(model_name="CfC")) for found in scrapes]
    assert activity[-3:] == [0, 0, None]
    assert scrapes[-1]["training_active"] == {labels(model_name="LTC"): 1}
    other.end("completed")


def test_models_over_the_cap_are_counted_together(exporter, trainer, wait, monkeypatch, labels):
    monkeypatch.setenv("LIQUID_TELEMETRY_MODELS", "2")
    jobs = [
        trainer(model_name=model, started=float(n)) for n, model in enumerate(("A", "B", "C", "D"), start=1)
    ]
    exporter.start()
    found = exporter.scrape()
    assert {dict(key)["model_name"] for key in found["training_jobs_started_total"]} == {"A", "B", "other"}
    assert {dict(key)["model_name"] for key in found["training_active"]} == {"A", "B"}
    assert found["telemetry_dropped_total"][labels(signal="exporter", reason="models")] == 2
    for job in jobs:
        job.kill()
    wait(lambda: exporter.jobs("failed", "other", "killed") == 2)


def test_signal_zero_leaves_everything_alone(exporter, trainer):
    """The exporter never signals a training process: the pid may be another's by now."""
    job = trainer()
    exporter.start()
    os.kill(job.pid, signal.SIGSTOP)
    try:
        assert exporter.jobs("failed", "CfC", "killed") == 0
        assert [exporter.json("/ready")[0] for _ in range(2)] == [200, 200]
    finally:
        os.kill(job.pid, signal.SIGCONT)
