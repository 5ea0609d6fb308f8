"""Tells at once, past all records that wait for a device, in which phase a run is and that it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.spool import Pulse

START, FIRST, BATCH, EPOCH, CHECKPOINT, END = (
    "start-up",
    "first batch",
    "batch",
    "epoch",
    "checkpoint",
    "end",
)
_WARM = 20  # signs of progress in batches; until then a compiler may still be at work


@dataclass
class _Silences:
    """How long a phase was silent: the two longest, because one alone may have been a mishap."""

    seen: int = 0
    longest: float = 0.0
    second: float = 0.0

    def add(self, seconds: float) -> None:
        self.seen += 1
        _, self.second, self.longest = sorted((self.second, self.longest, seconds))


class Heart:
    """The pulse of one run, written at each change of phase and each drain of batches; never for a batch.

    The exporter process judges from it whether the run has stalled, so it also says how long each phase was silent.

    Args:
        faults: Where a pulse that could not be written is counted.
        now: Monotonic seconds.
    """

    def __init__(self, faults: Faults, now: Callable[[], float] = time.monotonic) -> None:
        self.write: Callable[[Pulse], None] | None = None
        """Where the pulse goes; without it nothing is done."""
        self.signals: tuple[int | None, int | None] = (None, None)
        """At which the threads write their stacks, as in :class:`Pulse`."""
        self._faults, self._now = faults, now
        self._base, self._stage, self._saves = START, "", False
        self._at = now()
        self._silences: dict[str, _Silences] = {}
        self._epoch: int | None = None
        self._batch: int | None = None

    def begin(self, phase: str) -> None:
        """Training, or what is around it, is in another phase."""
        if self.write is not None and phase != self._base:
            self._tell(base=phase)

    def beat(self) -> None:
        """Batches have ended."""
        if self.write is not None:
            self._tell()

    def train(self, epoch: int, batch: int | None, last: bool) -> None:
        """Batches of training have ended, perhaps the last of an epoch."""
        if self.write is not None:
            self._epoch, self._batch = epoch, self._batch if batch is None else batch
            self._tell(base=EPOCH if last else BATCH)

    def evaluate(self, stage: str) -> None:
        """A pass over evaluation data begins; an empty name ends it."""
        if self.write is not None and stage != self._stage:
            self._tell(stage=stage)

    def save(self, saves: bool) -> None:
        """A checkpoint begins or ends."""
        if self.write is not None:
            self._tell(saves=saves)

    @property
    def phase(self) -> str:
        """The innermost phase."""
        return CHECKPOINT if self._saves else self._stage or self._base

    def _tell(self, base: str | None = None, stage: str | None = None, saves: bool | None = None) -> None:
        now = self._now()
        self._silences.setdefault(self.phase, _Silences()).add(now - self._at)
        self._at = now
        self._base = self._base if base is None else base
        self._stage = self._stage if stage is None else stage
        self._saves = self._saves if saves is None else saves
        self.tell()

    def tell(self) -> None:
        """Write the pulse."""
        if self.write is None:
            return
        usual = self._usual()
        pulse = Pulse(
            self.phase,
            round(self._at, 6),
            usual.seen,
            round(usual.longest, 3),
            round(usual.second, 3),
            self._epoch,
            self._batch,
            *self.signals,
        )
        try:
            self.write(pulse)
        except Exception as error:
            self._faults.report("metrics", error)

    def _usual(self) -> _Silences:
        found = self._silences.get(self.phase, _Silences())
        first = self._silences.get(FIRST)
        if self.phase == BATCH and first is not None and found.seen < _WARM:
            return _Silences(found.seen, max(found.longest, first.longest), max(found.second, first.longest))
        return found
