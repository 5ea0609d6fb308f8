"""When an exporter leaves: not before what it knows has been scraped, and never in the middle of a run."""

import contextlib
import json
import os
import signal


def scrape_until_gone(exporter):
    with contextlib.suppress(OSError, AttributeError):  # it may leave at any moment
        exporter.scrape()
    return exporter.gone()


def test_it_leaves_when_every_end_has_been_scraped_twice(exporter, trainer, spool, wait):
    trainer().end("completed")
    exporter.start()
    scrapes = []
    wait(lambda: _note(scrapes, exporter))
    assert scrapes[:3] == [0, 1, 1]
    assert len(scrapes) <= 4
    assert not list((spool / "runs").iterdir())
    assert json.loads((spool / "targets.json").read_text()) == []
    assert not (spool / "exporter.json").exists()


def _note(scrapes, exporter):
    with contextlib.suppress(OSError, AttributeError):
        scrapes.append(exporter.jobs("completed", "CfC"))
    return exporter.gone()


def test_it_leaves_unscraped_after_a_while(exporter, trainer, spool, wait, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_LEAVE", "1")
    trainer().kill()
    exporter.start()
    wait(exporter.gone)
    assert not list((spool / "runs").iterdir())
    assert exporter.total("CfC", "failed/unknown") == 1


def test_it_stays_while_a_run_lives(exporter, trainer, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_LEAVE", "0.1")
    trainer()
    exporter.start()
    for _ in range(5):
        exporter.scrape()
    assert not exporter.gone()


def test_sigterm_waits_for_the_scrape_of_a_death(exporter, trainer, wait):
    """As systemd stops a unit: the trainer killed, the exporter told to go."""
    job = trainer()
    address = exporter.start()
    exporter.scrape()
    job.kill()
    os.kill(address.pid, signal.SIGTERM)
    assert exporter.jobs("failed", "CfC", "killed") == 1
    wait(lambda: scrape_until_gone(exporter))


def test_sigterm_with_nothing_to_tell_ends_it(exporter, trainer, wait, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_LINGER", "0")
    trainer()
    os.kill(exporter.start().pid, signal.SIGTERM)
    wait(exporter.gone)


def test_second_sigterm_ends_it_at_once(exporter, trainer, wait):
    trainer()
    address = exporter.start()
    os.kill(address.pid, signal.SIGTERM)
    wait(lambda: exporter.get("/live")[0] == 200)
    os.kill(address.pid, signal.SIGTERM)
    wait(exporter.gone)


def test_a_run_that_sits_down_while_it_leaves_is_not_missed(exporter, trainer, wait):
    """Whatever the moment, a run that found the lock held ends up served."""
    for number in range(3):
        trainer(run_id=f"old-{number}").end("completed")
        exporter.start()
        wait(lambda: scrape_until_gone(exporter))
        job = trainer(run_id=f"new-{number}", model_name="LTC")
        exporter.start()
        exporter.scrape()
        assert exporter.json("/ready")[0] == 200
        job.end("completed")
        wait(lambda: scrape_until_gone(exporter))
    assert exporter.total("LTC", "completed/") == 3


def test_log_says_what_happened(exporter, trainer, spool, wait):
    trainer().kill()
    address = exporter.start()
    wait(lambda: scrape_until_gone(exporter))
    lines = [line.split(" ", 2)[2] for line in (spool / "exporter.log").read_text().splitlines()]
    assert lines == [
        "INFO run run-1 (CfC): failed (unknown): the process ended without a word",
        f"INFO pid {address.pid} serves {spool} at {address.url}",
        "INFO leaving",
    ]
    assert (spool / "exporter.stderr").read_text() == ""
