"""After the end the launcher stays until Prometheus has seen it, and no longer."""

import signal
from contextlib import suppress

from servers import eventually

WAITS = "liquid-train run: the end waits up to 60 s to be scraped; Ctrl-C or SIGTERM ends that\n"


def scrape_until_over(process, exporter, seen):
    with suppress(OSError, AttributeError):
        seen.append(exporter.scrape().get(("training_jobs_failed_total", "night", "exited")))
    return process.poll() is not None


def test_it_stays_until_the_end_has_been_scraped_twice(start, exporter):
    process = start("sh", "-c", "exit 3", linger=60, name="night")
    seen = []
    eventually(lambda: scrape_until_over(process, exporter, seen))
    assert process.returncode == 3
    assert seen[0] == 0
    assert seen.count(1) >= 2
    assert process.communicate()[1] == WAITS


def test_it_stays_for_a_run_of_the_command(start, exporter, fake_run):
    process = start(*fake_run("CfC", "seat.update(status='completed')"), linger=60)
    assert process.stderr.readline() == WAITS
    assert process.poll() is None
    eventually(lambda: scrape_until_over(process, exporter, []))
    assert process.returncode == 0


def test_sigterm_ends_the_stay(start, exporter):
    process = start("sh", "-c", "exit 3", linger=60, name="night")
    assert process.stderr.readline() == WAITS
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 3
    eventually(exporter.ends)
    assert exporter.ends() == {("night", "failed/exited"): 1}


def test_nothing_to_scrape_is_not_waited_for(start):
    process = start("true", linger=600)
    assert process.wait(30) == 0
    assert process.communicate()[1] == ""


def test_linger_over_and_zero(start):
    assert start("sh", "-c", "exit 3", linger=0.5).wait(30) == 3
    assert start("sh", "-c", "exit 3", linger=0).wait(30) == 3


def test_an_exporter_that_dies_is_replaced(start, exporter):
    process = start("sh", "-c", "exit 3", linger=60, name="night")
    assert process.stderr.readline() == WAITS
    eventually(exporter.ends)
    exporter.close()
    eventually(lambda: scrape_until_over(process, exporter, []), 60)
    assert process.returncode == 3
    assert exporter.ends() == {("night", "failed/exited"): 1}
