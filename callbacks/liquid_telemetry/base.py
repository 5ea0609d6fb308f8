"""What the callbacks share: Lightning's hooks, handed to one observer per Trainer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.run import ObserverOptions
from liquid_telemetry.switch import is_switched_off

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer

    from liquid_telemetry.observe.backend import Backend
    from liquid_telemetry.observe.observer import Observer
elif "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback
else:
    from lightning.pytorch import Callback

_observers: WeakKeyDictionary[Any, Observer] = WeakKeyDictionary()
_orphaned = Faults()
"""Where faults go as long as there is no observer."""


def _observed(hook: Callable[..., None]) -> Any:
    """A hook that reaches the observer only on the callback that leads, and never raises."""

    @wraps(hook)
    def call(
        self: TelemetryCallback, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        faults = _orphaned
        try:
            observer = self._observer_of(trainer)
            if observer is not None:
                faults = observer.faults
                hook(self, observer, trainer, *args, **kwargs)
        except Exception as error:
            faults.report("observer", error)

    return call


class TelemetryCallback(Callback):
    """What all our callbacks share. Of those on one Trainer the first leads: it alone observes, for all.

    Constructors keep plain options; files, threads and sockets are born in ``setup`` and stay behind when the
    callback is pickled, and so do collaborators. What observes is imported there, too.
    """

    def __init__(self, enabled: bool, options: ObserverOptions) -> None:
        self.enabled = enabled and not is_switched_off()
        self._options = options
        self._observer: Observer | None = None

    @property
    def run(self) -> Run | None:
        """The run that this callback observes or observed last, None before there is one."""
        observer = self._observer
        return Run(observer) if observer is not None and observer.run is not None else None

    def _backends(self) -> Sequence[Backend]:
        raise NotImplementedError

    def _observer_of(self, trainer: Trainer) -> Observer | None:
        """The observer of the trainer if this callback leads on it."""
        if not self.enabled:
            return None
        observer = self._observer
        if observer is None or observer.trainer() is not trainer:
            observer = self._observer = _observers.get(trainer) or self._observe(trainer)
        return observer if observer.is_led_by(self) and observer.pid == os.getpid() else None

    def _observe(self, trainer: Trainer) -> Observer:
        from liquid_telemetry.observe.observer import Observer

        attached: list[Any] = cast("Any", trainer).callbacks
        ours = [c for c in attached if isinstance(c, TelemetryCallback) and c.enabled] or [self]
        options = self._options
        for callback in ours:
            options = options.merged(callback._options)
        backends = {b.signal: b for callback in reversed(ours) for b in callback._backends()}
        observer = _observers[trainer] = Observer(trainer, options, list(backends.values()), leader=ours[0])
        return observer

    def __getstate__(self) -> dict[str, Any]:
        stay = ("_observer", "_registry", "_provider", "_logger")
        # log: methods of the model, which Lightning hangs on every callback
        lent = ("log", "log_dict", *_OFTEN, *_OFTEN_EVALUATED)
        kept = {name: value for name, value in self.__dict__.items() if name not in lent}
        kept |= {name: None for name in stay if name in kept}
        return kept | {"_options": replace(self._options, clock=None)}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """A Trainer function begins."""
        _dismiss(trainer)
        self._observer = _observers.get(trainer)
        self._begin(trainer, pl_module, stage)
        if not any(callback is self for callback in cast("Any", trainer).callbacks):
            return  # it is another callback's, which may call what Lightning would skip
        vars(self).update(_skipped(type(self), _UNUSED if self.enabled else (*_OFTEN, *_OFTEN_EVALUATED)))
        if stage == "fit":
            self._shorten(trainer, pl_module)

    @_observed
    def _begin(self, observer: Observer, trainer: Trainer, stage: str) -> None:
        observer.setup(trainer, trainer.lightning_module, stage)

    @_observed
    def _shorten(self, observer: Observer, trainer: Trainer) -> None:
        short = _short_hooks(self, observer)
        vars(self).update({name: short[name] for name in _skipped(type(self), tuple(short))})

    def _forget_short_hooks(self) -> None:
        for name in _OFTEN:
            vars(self).pop(name, None)

    @_observed
    def on_train_start(self, observer: Observer, trainer: Trainer) -> None:
        observer.announce(trainer)

    @_observed
    def on_train_epoch_start(self, observer: Observer, trainer: Trainer) -> None:
        observer.training.epoch_start(trainer)

    @_observed
    def on_train_batch_start(self, observer: Observer, trainer: Trainer, batch: Any, batch_idx: int) -> None:
        observer.training.batch_start(trainer, batch_idx)

    @_observed
    def on_train_batch_end(
        self, observer: Observer, trainer: Trainer, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        observer.training.batch_end(trainer, outputs, batch, batch_idx)

    @_observed
    def on_before_optimizer_step(self, observer: Observer, trainer: Trainer, optimizer: Any) -> None:
        observer.training.before_optimizer_step(trainer.lightning_module)

    @_observed
    def on_train_epoch_end(self, observer: Observer, trainer: Trainer) -> None:
        observer.training.epoch_end(trainer)

    @_observed
    def on_train_end(self, observer: Observer, trainer: Trainer) -> None:
        observer.train_end(trainer)

    @_observed
    def on_fit_end(self, observer: Observer, trainer: Trainer) -> None:
        observer.fit_end(trainer)

    @_observed
    def on_validation_start(self, observer: Observer, trainer: Trainer) -> None:
        observer.evaluation_start(trainer, "validation")

    @_observed
    def on_test_start(self, observer: Observer, trainer: Trainer) -> None:
        observer.evaluation_start(trainer, "test")

    @_observed
    def on_predict_start(self, observer: Observer, trainer: Trainer) -> None:
        observer.evaluation_start(trainer, "predict")

    @_observed
    def on_validation_batch_start(
        self, observer: Observer, trainer: Trainer, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        observer.evaluation.batch_start(batch_idx)

    @_observed
    def on_validation_batch_end(
        self,
        observer: Observer,
        trainer: Trainer,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        observer.evaluation.batch_end(trainer, batch, batch_idx)

    @_observed
    def on_validation_end(self, observer: Observer, trainer: Trainer) -> None:
        observer.evaluation.end(trainer)

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    on_test_end = on_predict_end = on_validation_end

    @_observed
    def on_save_checkpoint(self, observer: Observer, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        observer.save_checkpoint(checkpoint)

    @_observed
    def on_load_checkpoint(self, observer: Observer, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        observer.load_checkpoint(checkpoint)

    @_observed
    def on_exception(self, observer: Observer, trainer: Trainer, exception: BaseException) -> None:
        self._forget_short_hooks()
        observer.exception(trainer, exception)

    @_observed
    def teardown(self, observer: Observer, trainer: Trainer, stage: str) -> None:
        self._forget_short_hooks()
        observer.teardown(trainer, stage)


_UNUSED = ("on_before_zero_grad", "on_before_backward", "on_after_backward")
_OFTEN = ("on_train_batch_start", "on_train_batch_end", "on_before_optimizer_step", *_UNUSED)
_OFTEN_EVALUATED = tuple(
    f"on_{stage}_batch_{moment}" for stage in ("validation", "test", "predict") for moment in ("start", "end")
)


def _skipped(kind: type[TelemetryCallback], names: Sequence[str]) -> dict[str, None]:
    """Lightning skips a hook that is None, and calls one that does nothing; a subclass may have a use for it."""
    return {name: None for name in names if getattr(kind, name) is getattr(TelemetryCallback, name)}


def _short_hooks(callback: TelemetryCallback, observer: Observer) -> dict[str, Callable[..., None] | None]:
    """The hooks of every batch with a short way to the observer; Lightning skips one that is None.

    They hang on the callback while its Trainer fits. Another Trainer with the same callback goes the long way.
    """
    from liquid_telemetry.observe.hooks import short_hooks

    kind, watch = type(callback), observer.training
    long_way = partial(kind.on_train_batch_start, callback), partial(kind.on_train_batch_end, callback)
    start, end = short_hooks(observer.trainer, watch, observer.faults, *long_way)
    hooks: dict[str, Callable[..., None] | None] = {"on_train_batch_start": start, "on_train_batch_end": end}
    if not watch.measures_gradients:
        hooks["on_before_optimizer_step"] = None
    return hooks


def _dismiss(trainer: Trainer) -> None:
    """Drop an observer whose leader has left the Trainer, as when a model makes new callbacks for each fit.

    So is one of the process that this one was forked from: the run is its own to tell of.
    """
    observer = _observers.get(trainer)
    if observer is None:
        return
    left = not any(observer.is_led_by(c) for c in cast("Any", trainer).callbacks)
    if left or observer.pid != os.getpid():
        del _observers[trainer]


class Run:
    """What a program may want to know of its run."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        info = observer.run
        assert info is not None
        self.run_id: str = info.run_id
        self.dir: Path = info.dir

    @property
    def metrics_url(self) -> str | None:
        """Where the metrics are served; None until the exporter has started, and where nothing is served."""
        return self._observer.outputs.get("metrics_url")
