"""A tap on ``trainer.profiler``: Lightning brackets every action of a run there, so nothing need be patched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

from liquid_telemetry.observe import device, phases
from liquid_telemetry.observe.device import DeviceClock
from liquid_telemetry.observe.phases import PhaseClock

Context = AbstractContextManager[Any]
_NAMES = 500
"""Names of actions that are remembered: a program may make up any number."""
_OWN = frozenset({"_inner", "_quiet", "_sections", "profile"})


class ProfilerTap:
    """Stands in front of the user's profiler, passes everything on, and times the actions that are phases.

    Lightning's own no-op profiler enters a generator for each of the dozens of actions of a batch. The tap hands
    out one shared empty context for those instead, which gives back about what the telemetry takes.

    Args:
        inner: The profiler that the trainer had.
        phase_clock: Receives the phases.
        checkpoint: Entered around each checkpoint.
        device_clock: Times phases on the device, where asked for.

    Attributes:
        profile: Gives the context that Lightning enters around an action.
    """

    def __init__(
        self,
        inner: Any,
        phase_clock: PhaseClock,
        checkpoint: Context,
        device_clock: DeviceClock | None = None,
    ) -> None:
        self._inner = inner
        self._quiet = type(inner).__name__ == "PassThroughProfiler"
        self._sections = _Sections(phase_clock, checkpoint, device_clock)
        self.profile: Callable[[str], Context] = self._choose()

    @property
    def inner(self) -> Any:
        """The profiler that the trainer had, to be put back."""
        return self._inner

    def start(self, action_name: str) -> None:
        """Begin an action that Lightning brackets by two calls."""
        if not self._quiet:
            self._inner.start(action_name)
        self._sections[action_name].__enter__()

    def stop(self, action_name: str) -> None:
        """End an action that Lightning brackets by two calls."""
        self._sections[action_name].__exit__(None, None, None)
        if not self._quiet:
            self._inner.stop(action_name)

    def _choose(self) -> Callable[[str], Context]:
        if self._quiet:
            return self._sections.__getitem__
        if getattr(type(self._inner).profile, "__module__", "").endswith(".profilers.profiler"):
            return _Brackets(self._inner, self._sections).__getitem__
        return self._both

    def _both(self, action_name: str) -> Context:
        section, theirs = self._sections[action_name], self._inner.profile(action_name)
        return theirs if section is _IDLE else _Both(theirs, section)

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
        """Copies and files of a Trainer get the profiler that it had."""
        return untapped, (self._inner,)

    def __getattr__(self, name: str) -> Any:
        if name in _OWN:  # while being copied
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._inner, name, value)


class _Sections(dict[str, Context]):
    """The context of each action, made when the action is first seen."""

    def __init__(
        self, phase_clock: PhaseClock, checkpoint: Context, device_clock: DeviceClock | None
    ) -> None:
        super().__init__(save_checkpoint=checkpoint)
        self._phases = phase_clock
        self._device = device_clock

    def __missing__(self, action_name: str) -> Context:
        phase = _phase_of(action_name)
        section = _IDLE if phase is None else self._section(phase)
        if len(self) < _NAMES:
            self[action_name] = section
        return section

    def _section(self, phase: int) -> Context:
        section = self._phases.section(phase)
        if self._device is None or phase not in device.TIMED:
            return section
        return self._device.section(phase, section)


class _Idle:
    """An empty context at half the price of ``nullcontext``: entered a dozen times a batch.

    ``"".format`` is a function without a Python frame that takes whatever it is given and returns what is false.
    """

    __slots__ = ()
    __enter__ = __exit__ = "".format


_IDLE = cast("Context", _Idle())


def profiler_of(trainer: Any) -> Any:
    """The trainer's profiler, a plain attribute that Lightning looks up at each use."""
    return trainer.profiler


def set_profiler(trainer: Any, profiler: Any) -> None:
    """Replace the trainer's profiler."""
    trainer.profiler = profiler


def untapped(profiler: Any) -> Any:
    """The user's profiler, whether a tap stands in front of it or not."""
    return profiler.inner if isinstance(profiler, ProfilerTap) else profiler


def _phase_of(action_name: str) -> int | None:
    if action_name == "optimizer_step":
        return phases.OPTIMIZER
    found = (phase for prefix, suffix, phase in _ACTIONS if _is(prefix, suffix, action_name))
    return next(found, None)


_ACTIONS: tuple[tuple[str, str, int], ...] = (
    ("[LightningModule]", ".optimizer_step", phases.OPTIMIZER),
    ("[", ".train_dataloader_next", phases.DATA),
    ("[Strategy]", ".batch_to_device", phases.TRANSFER),
    ("[Strategy]", ".training_step", phases.FORWARD),
    ("[Strategy]", ".backward", phases.BACKWARD),
)


def _is(prefix: str, suffix: str, action_name: str) -> bool:
    return action_name.startswith(prefix) and action_name.endswith(suffix)


class _Brackets(dict[str, Context]):
    """For a profiler whose ``profile`` is Lightning's own, which enters a generator between ``start`` and ``stop``.

    A context that is used again for the same action does that for less, and pays for ours inside.
    """

    def __init__(self, inner: Any, sections: _Sections) -> None:
        super().__init__()
        self._inner = inner
        self._sections = sections

    def __missing__(self, action_name: str) -> Context:
        bracket = _Bracket(self._inner, self._sections[action_name], action_name)
        if len(self) < _NAMES:
            self[action_name] = bracket
        return bracket


class _Bracket(Context):
    """The user's profiler outside, ours inside, so that its own cost is not taken for the action's."""

    __slots__ = ("_action_name", "_enter", "_leave", "_start", "_stop")

    def __init__(self, inner: Any, section: Context, action_name: str) -> None:
        self._start, self._stop = inner.start, inner.stop
        self._enter, self._leave = section.__enter__, section.__exit__
        self._action_name = action_name

    def __enter__(self) -> str:
        self._start(self._action_name)
        self._enter()
        return self._action_name

    def __exit__(self, *error: Any) -> None:
        self._leave(*error)
        self._stop(self._action_name)


class _Both(Context):
    """The same for a profiler with a ``profile`` of its own."""

    __slots__ = ("_inner", "_section")

    def __init__(self, inner: Context, section: Context) -> None:
        self._inner = inner
        self._section = section

    def __enter__(self) -> Any:
        entered = self._inner.__enter__()
        self._section.__enter__()
        return entered

    def __exit__(self, *error: Any) -> bool | None:
        self._section.__exit__(*error)
        return self._inner.__exit__(*error)
