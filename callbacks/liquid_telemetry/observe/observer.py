"""The state machine over Lightning's hooks: run, stage, epoch, batch; any start or end may be missing."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from liquid_telemetry.observe.abandoned import tell_at_exit
from liquid_telemetry.observe.backend import Backend
from liquid_telemetry.observe.checkpoints import CheckpointWatch
from liquid_telemetry.observe.clock import RunClock
from liquid_telemetry.observe.device import device_clock
from liquid_telemetry.observe.dispatch import Dispatcher
from liquid_telemetry.observe.evaluation import EvaluationWatch
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.handlers import keep_handlers
from liquid_telemetry.observe.outcome import in_teardown, outcome_of, ran_in_children
from liquid_telemetry.observe.phases import PhaseClock
from liquid_telemetry.observe.profiler import ProfilerTap, profiler_of, set_profiler, untapped
from liquid_telemetry.observe.pulse import END, FIRST
from liquid_telemetry.observe.records import RunEnded, RunInfo, RunStarted
from liquid_telemetry.observe.run import (
    STAGE_OF_FN,
    ObserverOptions,
    checkpoint_folder,
    count_parameters,
    finite_or_none,
    new_run,
)
from liquid_telemetry.observe.state import RunState
from liquid_telemetry.observe.training import TrainingWatch

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

CHECKPOINT_KEY = "liquid_telemetry"


class Observer:
    """Observes one Trainer and tells its backends what happened, as frozen records.

    Args:
        trainer: Kept weakly.
        options: Of the callbacks, merged.
        backends: One for each signal.
        leader: The callback whose hooks reach this observer. Kept weakly: Lightning hangs the model on it.
    """

    training: TrainingWatch
    evaluation: EvaluationWatch

    def __init__(
        self, trainer: Trainer, options: ObserverOptions, backends: Sequence[Backend], leader: object = None
    ) -> None:
        self.trainer = weakref.ref(trainer)
        self.pid = os.getpid()
        self._leader = None if leader is None else weakref.ref(leader)
        self.faults = Faults()
        self._options = options
        self._dispatch = Dispatcher(backends, self.faults)
        self._state: RunState | None = None
        self._fn: str | None = None
        self._fitted = self._tuned = self._ended = self._fit_end_seen = False

    def is_led_by(self, callback: object) -> bool:
        """Whether the hooks of a callback reach this observer."""
        return self._leader is not None and self._leader() is callback

    @property
    def is_open(self) -> bool:
        """Whether a run is under way whose end has not been told."""
        return self._state is not None and not self._ended and not self._tuned

    @property
    def run(self) -> RunInfo | None:
        """The run, once there is one."""
        return self._state.info if self._state is not None else None

    @property
    def outputs(self) -> dict[str, str | None]:
        """What the backends say for ``telemetry.json``."""
        return {key: value for backend in self._dispatch.backends for key, value in backend.outputs().items()}

    def setup(self, trainer: Trainer, module: LightningModule | None, fn: str, together: bool = True) -> None:
        """A Trainer function begins; ``test`` after ``fit`` continues its run, and so does ``fit`` after a Tuner.

        ``together``: whether every rank comes here.
        """
        tell_at_exit(self)
        with self.faults.guard("observer"):
            self._end_abandoned(trainer)
        continues = self._tuned if fn == "fit" else self._fitted
        if self._state is None or not continues:
            self.faults.reset()
            self._state = self._new_state(trainer, module, fn, together)
            self._fitted = False
        self._fn = fn
        self._state.fitting = fn == "fit"
        self._tuned = self._ended = self._fit_end_seen = False
        if fn == "fit" and self._options.device_phases:
            self._state.device = device_clock(trainer.strategy.root_device)
        self.training, self.evaluation = TrainingWatch(self._state), EvaluationWatch(self._state)
        self._dispatch.start(self._state.info)
        if fn == "fit":
            self._install_tap(trainer, self._state)

    def _end_abandoned(self, trainer: Trainer) -> None:
        """End a run whose exception did not reach us: another callback's ``on_exception`` raised, or a Tuner failed."""
        if self._state is None or self._ended or self._tuned:
            return
        if self._state.announced:
            self._end(trainer, "failed", "unknown", None)
        else:
            self._dispatch.close()

    def _new_state(
        self, trainer: Trainer, module: LightningModule | None, fn: str, together: bool
    ) -> RunState:
        clock = RunClock(self._options.clock)
        phases = PhaseClock(clock.now)
        start = phases.started
        info = new_run(trainer, module, self._options, fn, clock.unix_ns(start), together)
        return RunState(info, clock, phases, self._dispatch, self._options, start)

    def _install_tap(self, trainer: Trainer, state: RunState) -> None:
        saves = CheckpointWatch(state, self.faults, self.trainer, self.training.settle)
        set_profiler(trainer, ProfilerTap(untapped(profiler_of(trainer)), state.phases, saves, state.device))

    def load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint is being restored; it names the run that wrote it."""
        saved = checkpoint.get(CHECKPOINT_KEY)
        if not isinstance(saved, dict) or self._state is None or self._state.announced:
            return
        run_id = str(saved.get("run_id"))
        if run_id != self._state.info.run_id:  # as a Tuner restores what it saved
            self._state.resumed_from = run_id

    def save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint is being made; it will name this run."""
        if self.run is not None:
            checkpoint[CHECKPOINT_KEY] = {"run_id": self.run.run_id, "trace_id": self.run.trace_id}

    def announce(self, trainer: Trainer) -> None:
        """Everything is restored and ready: tell that the run has started, once."""
        state = self._state
        if state is None:
            return
        keep_handlers(trainer, self._dispatch.heart.signals)
        if state.announced:
            return
        state.announced = True
        self._dispatch.heart.begin(FIRST)
        checkpoints = checkpoint_folder(trainer) if self._fn == "fit" else None
        self._dispatch.facts.update(checkpoints=checkpoints, resumed_from=state.resumed_from)
        module: LightningModule | None = trainer.lightning_module
        record = RunStarted(
            time_ns=state.unix_now,
            resumed_from=state.resumed_from,
            parameters=count_parameters(module) if module is not None else None,
            max_epochs=finite_or_none(trainer.max_epochs),
            batches_per_epoch=finite_or_none(trainer.num_training_batches) or None,
        )
        self._dispatch.emit(record)
        self._dispatch.poll()

    def evaluation_start(self, trainer: Trainer, stage: str) -> None:
        """A pass over evaluation data begins, within fit or alone."""
        if self._fn != "fit":
            self.announce(trainer)
        self.evaluation.start(trainer, stage)

    def train_end(self, trainer: Trainer) -> None:
        """The last epoch is over."""
        self._dispatch.heart.begin(END)
        self.training.settle(trainer)

    def fit_end(self, trainer: Trainer) -> None:
        """Training is over and the last asynchronous checkpoint is on disk."""
        self._fit_end_seen = True
        self.announce(trainer)

    def teardown(self, trainer: Trainer, fn: str) -> None:
        """The Trainer function returned without an exception."""
        if self._fn is None or self._ended:
            return
        if fn == "fit" and not self._fit_end_seen:
            self._tuned = True
            set_profiler(trainer, untapped(profiler_of(trainer)))
            self._dispatch.close()
        else:
            self._end(trainer, "completed", None, None)

    def exception(self, trainer: Trainer, error: BaseException) -> None:
        """The Trainer function ends by an exception, possibly before any other hook or after ``teardown``."""
        if self._state is None or self._fn is None or (self._ended and not in_teardown(error)):
            if ran_in_children(error):
                return
            fn = trainer.state.fn.value if trainer.state.fn is not None else "fit"
            self.setup(trainer, trainer.lightning_module, fn, together=False)
        elif self._ended or self._tuned:
            self._dispatch.start(self._state.info)
        self._end(trainer, *outcome_of(error), error)

    def _end(self, trainer: Trainer, outcome: str, reason: str | None, error: BaseException | None) -> None:
        state = self._state
        assert state is not None
        for step in (self.announce, self.evaluation.abort, self.training.abort):
            with self.faults.guard("observer"):  # whatever fails, the end is told
                step(trainer)
        set_profiler(trainer, untapped(profiler_of(trainer)))
        self._fitted = self._fitted or self._fn == "fit"
        self._ended = True
        now = state.clock.now()
        phases = state.phases.snapshot(now) if state.fitting else ()
        global_step = trainer.global_step

        def build(_: Sequence[float] | None) -> RunEnded:
            return RunEnded(
                time_ns=state.clock.unix_ns(now),
                outcome=outcome,
                reason=reason,
                error=error,
                stage=STAGE_OF_FN[self._fn or "fit"],
                epoch=state.last_epoch,
                batch=state.last_batch,
                epochs=state.epochs,
                batches=state.batches,
                global_step=global_step,
                loss=state.last_loss,
                phase_ns=phases,
            )

        self._dispatch.emit_with((), build)
        self._dispatch.close()
