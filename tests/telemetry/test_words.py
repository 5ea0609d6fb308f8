"""Errors that cannot be told, or that say too much: the users', and faults of ours."""

import logging

import pytest
from lightning.pytorch import Callback
from tiny import Tiny, fit, only_run

from liquid_telemetry import Telemetry
from liquid_telemetry.observe.batches import SampleCounter


class SilentError(Exception):
    """Does not say what it is."""

    def __str__(self):
        raise self


class EvenSilentError(BaseException):
    __str__ = SilentError.__str__


class Failing(Tiny):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def training_step(self, batch, batch_idx):
        raise self.error


@pytest.mark.parametrize("kind", [SilentError, EvenSilentError])
def test_an_exception_that_cannot_be_put_into_words(kind):
    error = kind()
    heard = []

    class Later(Callback):
        def on_exception(self, trainer, pl_module, exception):
            heard.append(exception)

    with pytest.raises(kind) as caught:
        fit(Telemetry(), Later(), model=Failing(error))
    assert caught.value is error
    assert heard == [error]
    run = only_run()
    (failed,) = run.events_named("training_failed")
    assert failed["error_message"] == f"a {kind.__name__} that cannot be put into words"
    assert run.spans[-1]["status"]["message"] == failed["error_message"]
    assert (run.record["status"], run.record["error_message"]) == ("failed", failed["error_message"])


def test_a_message_without_end():
    with pytest.raises(ValueError, match="bbb"):
        fit(Telemetry(), model=Failing(ValueError("b" * 1_000_000)))
    (failed,) = only_run().events_named("training_failed")
    assert failed["error_message"] == "b" * 16_000


@pytest.mark.faulty
def test_a_fault_that_cannot_be_told(monkeypatch):
    monkeypatch.setattr(SampleCounter, "count", lambda *_: (_ for _ in ()).throw(SilentError()))
    made = fit(Telemetry())
    assert (made.state.finished, made.global_step) == (True, 6)
    counted = only_run().metrics["telemetry_errors_total"]
    assert counted[("reason", "SilentError"), ("signal", "observer")] > 0


class Raising(logging.Handler):
    def emit(self, record):
        raise OSError("the user's")


@pytest.mark.faulty
def test_a_handler_of_the_users_that_raises(tmp_path):
    (tmp_path / "file").write_text("")
    handler, log = Raising(), logging.getLogger("liquid_telemetry")
    log.addHandler(handler)
    try:
        made = fit(Telemetry(dir=str(tmp_path / "file" / "runs")))
    finally:
        log.removeHandler(handler)
    assert (made.state.finished, made.global_step) == (True, 6)
