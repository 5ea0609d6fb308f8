"""A tap on ``trainer.profiler``: Lightning brackets every action of a run there, so nothing need be patched."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from liquid_telemetry.observe import phases
from liquid_telemetry.observe.phases import OptimizerSection, PhaseClock, Section

_IDLE: AbstractContextManager[None] = nullcontext()
_OWN = frozenset({"_action_sections", "_checkpoint", "_inner", "_phases", "_quiet"})


class ProfilerTap:
    """Stands in front of the user's profiler, passes everything on, and times the actions that are phases.

    Lightning's own no-op profiler enters a generator for each of the dozens of actions of a batch. The tap hands
    out one shared empty context for those instead, which gives back more time than the telemetry takes.

    Args:
        inner: The profiler that the trainer had.
        phase_clock: Receives the phases.
        checkpoint: Entered around each checkpoint.
    """

    def __init__(self, inner: Any, phase_clock: PhaseClock, checkpoint: AbstractContextManager[None]) -> None:
        self._inner = inner
        self._phases = phase_clock
        self._checkpoint = checkpoint
        self._quiet = type(inner).__name__ == "PassThroughProfiler"
        self._action_sections: dict[str, AbstractContextManager[None]] = {}

    @property
    def inner(self) -> Any:
        """The profiler that the trainer had, to be put back."""
        return self._inner

    def profile(self, action_name: str) -> AbstractContextManager[Any]:
        """The context that Lightning enters around an action."""
        section = self._section(action_name)
        return section if self._quiet else _Both(self._inner.profile(action_name), section)

    def start(self, action_name: str) -> None:
        """Begin an action that Lightning brackets by two calls."""
        if not self._quiet:
            self._inner.start(action_name)
        self._section(action_name).__enter__()

    def stop(self, action_name: str) -> None:
        """End an action that Lightning brackets by two calls."""
        self._section(action_name).__exit__(None, None, None)
        if not self._quiet:
            self._inner.stop(action_name)

    def _section(self, action_name: str) -> AbstractContextManager[None]:
        section = self._action_sections.get(action_name)
        if section is None:
            section = self._action_sections[action_name] = self._classify(action_name)
        return section

    def _classify(self, action_name: str) -> AbstractContextManager[None]:
        if action_name == "save_checkpoint":
            return self._checkpoint
        if action_name == "optimizer_step" or _is("[LightningModule]", ".optimizer_step", action_name):
            return OptimizerSection(self._phases, phases.OPTIMIZER)
        for prefix, suffix, phase in _ACTIONS:
            if _is(prefix, suffix, action_name):
                return Section(self._phases, phase)
        return _IDLE

    def __getattr__(self, name: str) -> Any:
        if name in _OWN:  # while being copied
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._inner, name, value)


def profiler_of(trainer: Any) -> Any:
    """The trainer's profiler, a plain attribute that Lightning looks up at each use."""
    return trainer.profiler


def set_profiler(trainer: Any, profiler: Any) -> None:
    """Replace the trainer's profiler."""
    trainer.profiler = profiler


def untapped(profiler: Any) -> Any:
    """The user's profiler, whether a tap stands in front of it or not."""
    return profiler.inner if isinstance(profiler, ProfilerTap) else profiler


_ACTIONS = (
    ("[", ".train_dataloader_next", phases.DATA),
    ("[Strategy]", ".batch_to_device", phases.TRANSFER),
    ("[Strategy]", ".training_step", phases.FORWARD),
    ("[Strategy]", ".backward", phases.BACKWARD),
)


def _is(prefix: str, suffix: str, action_name: str) -> bool:
    return action_name.startswith(prefix) and action_name.endswith(suffix)


class _Both(AbstractContextManager[Any]):
    """The user's profiler outside, ours inside, so that its own cost is not taken for the action's."""

    __slots__ = ("_inner", "_section")

    def __init__(self, inner: AbstractContextManager[Any], section: AbstractContextManager[None]) -> None:
        self._inner = inner
        self._section = section

    def __enter__(self) -> Any:
        entered = self._inner.__enter__()
        self._section.__enter__()
        return entered

    def __exit__(self, *error: Any) -> bool | None:
        self._section.__exit__(*error)
        return self._inner.__exit__(*error)
