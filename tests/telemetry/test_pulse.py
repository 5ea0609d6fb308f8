"""The pulse of a real fit: what the exporter judges a stall by."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from tiny import Tiny, TinyData, fit, loader, only_run, trainer
from torch.utils.data import DataLoader

from liquid_telemetry import StructlogEvents, Telemetry
from liquid_telemetry.metrics import publish
from liquid_telemetry.spool import Pulse, RunSeat, read_pulse
from liquid_telemetry.testing import TickingClock, swallowed


@pytest.fixture
def pulses(monkeypatch):
    """Every pulse that is written."""
    seen, beat = [], RunSeat.beat

    def note(self, pulse):
        seen.append(pulse)
        beat(self, pulse)
        assert read_pulse(self._path(".pulse")) == pulse

    monkeypatch.setattr(RunSeat, "beat", note)
    return seen


def places(pulses):
    return [(pulse.phase, pulse.epoch, pulse.batch) for pulse in pulses]


@pytest.fixture
def still():
    """No second ever passes, so that only changes of phase give a pulse."""
    return Telemetry(clock=TickingClock())


def test_a_fit_with_validation_and_checkpoints(pulses, still):
    fit(still, enable_checkpointing=True)
    assert places(pulses) == [
        ("start-up", None, None),
        ("first batch", None, None),
        ("batch", 0, 0),
        ("epoch", 0, 0),  # its last batch begins
        ("validation", 0, 0),
        ("epoch", 0, 0),
        ("epoch", 0, 2),
        ("checkpoint", 0, 2),
        ("epoch", 0, 2),
        ("validation", 0, 2),
        ("epoch", 0, 2),
        ("epoch", 1, 2),
        ("checkpoint", 1, 2),
        ("epoch", 1, 2),
        ("end", 1, 2),
    ]
    times = [pulse.at for pulse in pulses]
    assert times == sorted(set(times))


def test_each_says_how_long_its_phase_was_silent_before(pulses, still):
    fit(still, max_epochs=3)
    times = [pulse.at for pulse in pulses] + [pulses[-1].at]
    silences = {}
    for pulse, begin, end in zip(pulses, times[:-1], times[1:], strict=True):
        known = [*sorted(silences.get(pulse.phase, []), reverse=True), 0, 0]
        assert pulse.seen == len(known) - 2
        if pulse.phase != "batch":
            assert pulse.longest == pytest.approx(known[0], abs=0.001)
            assert pulse.second == pytest.approx(known[1], abs=0.001)
        silences.setdefault(pulse.phase, []).append(end - begin)


def test_until_batches_are_warm_they_may_take_as_long_as_the_first(pulses, still):
    class Compiled(Tiny):
        def training_step(self, batch, batch_idx):
            if self.global_step == 0:
                threading.Event().wait(0.05)
            return super().training_step(batch, batch_idx)

    fit(still, model=Compiled(), max_epochs=1)
    (batch,) = [pulse for pulse in pulses if pulse.phase == "batch"]
    assert batch.longest >= 0.05
    assert batch.second >= 0.05


def test_very_short_epochs_have_each_a_pulse(pulses, still):
    fit(still, max_epochs=50, limit_val_batches=0, limit_train_batches=1)
    assert places(pulses) == [
        ("start-up", None, None),
        ("first batch", None, None),
        ("epoch", 0, 0),  # the first batch has ended, and so has its epoch
        *(("epoch", epoch, 0) for epoch in range(50)),
        ("end", 49, 0),
    ]


def test_validation_alone(pulses):
    trainer(Telemetry(clock=TickingClock())).validate(Tiny(), datamodule=TinyData(), verbose=False)
    phases = [pulse.phase for pulse in pulses]
    assert phases == ["start-up", "first batch", "validation", "first batch"]


def test_a_test_after_fit_goes_on_with_the_pulse(pulses, still):
    made = fit(still, max_epochs=1)
    pulses.clear()
    made.test(made.model, datamodule=TinyData(), verbose=False)
    assert places(pulses) == [("end", 0, 2), ("test", 0, 2), ("end", 0, 2)]


class Fast(TinyData):
    """Three thousand batches that pass in no time."""

    def train_dataloader(self):
        return DataLoader([next(iter(loader(1)))] * 3000, batch_size=None)


@pytest.mark.parametrize(
    ("per_second", "drains"),
    [pytest.param(256, 11, id="once a second"), pytest.param(None, 2, id="every 1,024 batches")],
)
def test_batches_give_no_pulse_but_their_drains_do(monkeypatch, pulses, per_second, drains):
    clock, writes, write = TickingClock(), [], os.pwrite

    def count(descriptor, data, offset):
        writes.append(len(data))
        return write(descriptor, data, offset)

    class Timed(Tiny):
        def training_step(self, batch, batch_idx):
            clock.advance(1 / per_second if per_second else 0)
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr(os, "pwrite", count)
    fit(Telemetry(clock=clock), model=Timed(), data=Fast(), max_epochs=1, limit_val_batches=0)
    phases = [pulse.phase for pulse in pulses]
    assert phases == ["start-up", "first batch", "batch", *["batch"] * drains, "epoch", "epoch", "end"]
    assert writes == [512] * len(pulses)


def test_validation_beats_at_each_drain(pulses):
    clock = TickingClock()

    class Slow(Tiny):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            clock.advance(2)
            super().validation_step(batch, batch_idx)

    fit(Telemetry(clock=clock), model=Slow(), max_epochs=1, num_sanity_val_steps=0)
    assert [pulse.phase for pulse in pulses].count("validation") == 1 + 2


class TestFiles:
    def test_a_pulse_stays_and_stacks_go(self, still):
        fit(still, max_epochs=1)
        folder = only_run().spool / "runs" / only_run().run_id
        assert read_pulse(folder / "0.pulse").phase == "end"
        assert sorted(path.name for path in folder.iterdir()) == ["0.json", "0.lock", "0.prom", "0.pulse"]

    def test_without_metrics_there_is_no_pulse(self, pulses, tmp_path):
        fit(StructlogEvents(), max_epochs=1)
        assert pulses == []
        assert not (tmp_path / "spool").exists()


class TestFaults:
    @pytest.mark.faulty
    def test_a_pulse_that_cannot_be_written(self, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(RunSeat, "beat", full)
        made = fit(Telemetry())
        assert made.global_step == 6
        errors = only_run().metrics["telemetry_errors_total"]
        assert errors[("reason", "OSError"), ("signal", "metrics")] > 5
        assert only_run().events[-1]["event"] == "training_completed"

    @pytest.mark.parametrize("error", [OSError, ValueError])
    def test_stacks_that_cannot_be_had(self, monkeypatch, pulses, error):
        def refuse(*_):
            raise error("on purpose")

        monkeypatch.setattr(publish, "StackFile", refuse)
        assert fit(Telemetry()).global_step == 6
        assert {(pulse.ask, pulse.dump) for pulse in pulses} == {(None, None)}
        assert swallowed == []


@pytest.mark.skipif(sys.platform != "linux", reason="signals are asked of Linux only")
class TestSignals:
    @staticmethod
    def caught():
        (mask,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "SigCgt" in line)
        return {number for number in signal.valid_signals() if int(mask.split()[1], 16) >> number - 1 & 1}

    def test_two_free_ones_for_the_time_of_a_fit(self, pulses):
        during = []

        class During(Callback):
            def on_train_batch_end(self, *_):
                during.append(TestSignals.caught())

        fit(max_epochs=1)
        before = self.caught()
        fit(During(), Telemetry(), max_epochs=1)
        ((ask, dump),) = {(pulse.ask, pulse.dump) for pulse in pulses}
        assert signal.SIGRTMIN < ask < dump < signal.SIGRTMAX
        assert during[0] - before - {signal.SIGTERM} == {ask, dump}
        assert self.caught() == before

    @pytest.mark.parametrize(
        "hook", ["setup", "on_fit_start", "on_train_batch_end", "on_train_end", "teardown"]
    )
    def test_they_are_given_back_after_a_failure(self, pulses, hook):
        """Lightning puts handlers back after `on_exception`."""

        def fail(*_, **__):
            raise RuntimeError("on purpose")

        failing = type("Failing", (Callback,), {hook: fail})()
        fit(max_epochs=1)
        before = self.caught()
        with pytest.raises(RuntimeError, match="on purpose"):
            fit(Telemetry(), failing, max_epochs=1)
        assert pulses
        assert self.caught() == before
        assert not list(Path("spool").rglob("*.stacks"))

    def test_nor_does_a_test_after_the_fit_keep_them(self):
        fit(max_epochs=1)
        before = self.caught()
        made = fit(Telemetry(), max_epochs=1)
        made.test(made.model, datamodule=TinyData(), verbose=False)
        made.validate(made.model, datamodule=TinyData(), verbose=False)
        assert self.caught() == before

    def test_lightning_leaves_them_alone_until_they_are_given_back(self, pulses):
        found = []

        class Last(Callback):
            def teardown(self, *_, **__):
                found.append(TestSignals.caught())

        fit(Last(), Telemetry(), max_epochs=1)
        assert {pulses[0].ask, pulses[0].dump} <= found[0]

    def test_a_fit_outside_the_main_thread_has_but_the_one(self, pulses):
        before, made = self.caught(), []
        thread = threading.Thread(target=lambda: made.append(fit(Telemetry())))
        thread.start()
        thread.join()
        assert made[0].global_step == 6
        ((ask, dump),) = {(pulse.ask, pulse.dump) for pulse in pulses}
        assert ask is None
        assert dump is not None
        assert self.caught() == before
        assert not list(Path("spool").rglob("*.stacks"))

    def test_two_fits_at_once_have_signals_of_their_own(self, pulses):
        class Inner(Callback):
            def on_train_start(self, *_):
                fit(Telemetry(), max_epochs=1)

        before = self.caught()
        fit(Telemetry(), Inner(), max_epochs=1)
        pairs = {(pulse.ask, pulse.dump) for pulse in pulses}
        assert len({number for pair in pairs for number in pair}) == 4
        assert self.caught() == before

    def test_those_of_the_program_stay_as_they_are(self, tmp_path):
        script = Path(__file__).parent / "scripts" / "handlers.py"
        done = subprocess.run(
            [sys.executable, script, Path(__file__).parents[1]], capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        before, during, after = told["before"], told["during"], told["after"]
        assert after == before
        middle = told["middle"]
        assert middle + 1 in during["caught"]
        ours = set(during["caught"]) - set(before["caught"]) - {signal.SIGTERM, middle + 1}
        assert len(ours) == 2
        assert not ours & {middle, middle + 1, middle + 2, middle + 3, signal.SIGUSR2}
        for name, found in before["handlers"].items():
            if int(name) not in (*ours, signal.SIGTERM):
                assert during["handlers"][name] == found
        assert told["mine"] == 2
        assert told["timer"]
        assert told["enabled"]

    @pytest.mark.parametrize("how", ["fork", "spawn"])
    def test_workers_do_not_mind_that_the_process_is_asked(self, pulses, how):
        answers = []

        class Workers(TinyData):
            def train_dataloader(self):
                return loader(8, num_workers=1, persistent_workers=True, multiprocessing_context=how)

        class Asked(Callback):
            def on_train_batch_end(self, trainer, module, outputs, batch, index):
                (stacks,) = Path("spool").rglob("*.stacks")
                for number in (pulses[0].ask, pulses[0].dump):
                    size = stacks.stat().st_size
                    os.kill(os.getpid(), number)
                    answers.append("on_train_batch_end" in stacks.read_text()[size:])

        assert fit(Asked(), Telemetry(), data=Workers(), max_epochs=1).global_step == 8
        assert answers == [True] * 16

    def test_a_forked_child_does_not_answer(self, monkeypatch, tmp_path):
        """A DataLoader's worker inherits the handlers; nobody asks it, and it would not mind."""
        stacks = publish.StackFile(tmp_path / "0.stacks")
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), stacks.ask)
            stacks.close()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert (tmp_path / "0.stacks").read_bytes() == b""
        stacks.close()
        assert not (tmp_path / "0.stacks").exists()


def test_the_record_of_a_pulse_is_small():
    assert len(Pulse("first batch", 1e9, 10**9, 1e6, 1e6, 10**9, 10**12, 64, 63).to_bytes()) == 512
