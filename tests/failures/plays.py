"""How each scenario is played, and what is wrong with what was seen."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from servers import eventually

from failures.notebook import Kernel
from failures.scenarios import Scenario
from failures.stage import JOB, Job, Stage, Told, count, ends, fault_time, kill
from liquid_telemetry.spool import exporter_address

_PATIENCE = 150.0


@dataclass(frozen=True)
class Verdict:
    """What was seen of a scenario.

    Args:
        scenario: Which.
        totals: Jobs, as Prometheus counts them.
        alerts: Those that were told.
        seconds: From the failure to the first of them; None without.
        wrong: What is not as it should be, in words.
    """

    scenario: Scenario
    totals: dict[str, int]
    alerts: list[str]
    seconds: float | None
    wrong: list[str]


class Play:
    """Plays one scenario; each public method is one way to."""

    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self.stage, self.scenario = stage, scenario
        self.folder = stage.home / "jobs" / scenario.name
        self.failed_at = 0.0

    def run(self) -> None:
        """Play, and wait for what is due."""
        self.failed_at = getattr(self, self.scenario.play)()
        with suppress(AssertionError):  # the verdict says what is missing
            eventually(self._is_complete, _PATIENCE)

    def verdict(self) -> Verdict:
        """Judge what was seen until now."""
        scenario, told = self.scenario, self.stage.told(self.scenario.name)
        totals, seen = self.stage.totals(scenario.name), ends(self.folder)
        wrong = [
            f"{what}: {found} instead of {due}"
            for what, found, due in [
                ("totals", totals, scenario.totals),
                ("alerts", count([alert.name for alert in told]), count(scenario.alerts)),
                ("events", count(seen), count(scenario.events or seen)),
            ]
            if found != due
        ]
        wrong += [f"runbook of {alert.name}: {alert.runbook}" for alert in told if not _fits(alert)]
        if scenario.events is None and "training_failed" not in seen:
            wrong.append("no event training_failed")
        seconds = min(alert.time for alert in told) - self.failed_at if told else None
        return Verdict(scenario, totals, [alert.name for alert in told], seconds, wrong)

    def alone(self) -> float:
        """A process that ends by itself."""
        return self._start().wait()

    def killed(self) -> float:
        """SIGKILL while it trains."""
        return self._end(self._start(), signal.SIGKILL)

    def terminated(self) -> float:
        """SIGTERM while it trains."""
        return self._end(self._start(), signal.SIGTERM)

    def interrupted(self) -> float:
        """Ctrl-C while it trains."""
        return self._end(self._start(), signal.SIGINT)

    def hung(self) -> float:
        """Killed once it has been told that it hangs."""
        job = self._start()
        self._is_told("TrainingStalled")
        job.signal(signal.SIGKILL)
        return fault_time(job.folder) or 0.0

    def recovers(self) -> float:
        """Goes on once it has been told that it hangs."""
        job = self._start()
        self._is_told("TrainingStalled")
        (job.folder / "go-on").touch()
        return job.wait()

    def import_error(self) -> float:
        """A script that imports what is not there, under the launcher."""
        script = self.stage.home / f"{self.scenario.name}.py"
        script.write_text("import a_module_that_is_not_there\n")
        launch = ["-m", "liquid_train", "run", "--port", "0", "--model-name", self.scenario.name]
        began = time.time()
        self.stage.start(
            [sys.executable, *launch, "--", sys.executable, str(script)], self.folder / "job"
        ).wait()
        return began

    def torchrun(self) -> float:
        """Two ranks started by torchrun."""
        return self._start("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2").wait()

    def five(self) -> float:
        """Five processes, one after another."""
        return min([self._start(folder=str(number)).wait() for number in range(5)])

    def three(self) -> float:
        """Three processes at once; the last is killed."""
        jobs = [self._start(folder=str(number)) for number in range(3)]
        failed_at = self._end(jobs[-1], signal.SIGKILL)
        for job in jobs:
            job.wait()
        return failed_at

    def exporter_killed(self) -> float:
        """The exporter is killed while it trains, and the process when there is a new one."""
        job, exporter = self._start_with_own_exporter()
        kill(exporter)
        eventually(lambda: self._exporter(job) not in (None, exporter), 120)
        return self._end(job, signal.SIGKILL)

    def both_killed(self) -> float:
        """Both are killed; a next run of the model comes."""
        job, exporter = self._start_with_own_exporter()
        failed_at = self._kill_both(job, exporter)
        command = [sys.executable, str(JOB), self.scenario.name]
        self.stage.start(command, self.folder / "next", job.spool).wait()
        return failed_at

    def gone(self) -> float:
        """Both are killed, as when a host is lost."""
        return self._kill_both(*self._start_with_own_exporter())

    def cell(self) -> float:
        """A cell of a notebook raises; its kernel goes on."""
        with Kernel(self.folder, self.stage.spool) as kernel:
            status = kernel.train([self.scenario.name, *self.scenario.options])
            assert status() == "error"
            eventually(self._is_complete, _PATIENCE)
            assert kernel.is_alive
        return fault_time(self.folder) or 0.0

    def kernel_killed(self) -> float:
        """A notebook's kernel is killed while a cell trains."""
        with Kernel(self.folder, self.stage.spool) as kernel:
            kernel.train([self.scenario.name, *self.scenario.options])
            eventually(lambda: "training_epoch_completed" in ends(self.folder, every=True), 120)
            failed_at = time.time()
            os.kill(kernel.pid, signal.SIGKILL)
        return failed_at

    def _start(self, *prefix: str, folder: str = "job", spool: Path | None = None) -> Job:
        command = [sys.executable, *prefix, str(JOB), self.scenario.name, *self.scenario.options]
        return self.stage.start(command, self.folder / folder, spool)

    def _end(self, job: Job, number: int) -> float:
        job.trains()
        return job.signal(number)

    def _start_with_own_exporter(self) -> tuple[Job, int]:
        spool = self.stage.own_spool(self.scenario.name)
        job = self._start(spool=spool)
        job.trains()
        eventually(lambda: self.stage.totals(self.scenario.name), 60)  # Prometheus has found the exporter
        exporter = self._exporter(job)
        assert exporter is not None
        return job, exporter

    def _kill_both(self, job: Job, exporter: int) -> float:
        os.kill(exporter, signal.SIGKILL)
        return job.signal(signal.SIGKILL)

    def _exporter(self, job: Job) -> int | None:
        address = exporter_address(job.spool)
        return address.pid if address is not None else None

    def _is_told(self, alert: str) -> None:
        eventually(lambda: alert in [told.name for told in self.stage.told(self.scenario.name)], _PATIENCE)

    def _is_complete(self) -> bool:
        names = [told.name for told in self.stage.told(self.scenario.name)]
        return self.stage.totals(self.scenario.name) == self.scenario.totals and set(
            self.scenario.alerts
        ) <= set(names)


def _fits(told: Told) -> bool:
    return told.runbook.endswith(f"/monitoring/runbooks/{told.name}.md")
