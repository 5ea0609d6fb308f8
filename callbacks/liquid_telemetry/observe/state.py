"""What the parts of one observer share about its run."""

from __future__ import annotations

from dataclasses import dataclass, field

from liquid_telemetry.observe.clock import RunClock
from liquid_telemetry.observe.device import DeviceClock
from liquid_telemetry.observe.dispatch import Dispatcher
from liquid_telemetry.observe.names import Freshness
from liquid_telemetry.observe.phases import PhaseClock
from liquid_telemetry.observe.records import BatchBlock, EpochEnded, RunInfo
from liquid_telemetry.observe.run import ObserverOptions


@dataclass
class RunState:
    """A run under way; lives from the first ``setup`` until the next run of the same Trainer."""

    info: RunInfo
    clock: RunClock
    phases: PhaseClock
    dispatch: Dispatcher
    options: ObserverOptions
    start: int
    """Monotonic nanoseconds."""
    fitting: bool = True
    """Whether the Trainer function under way is fit."""
    announced: bool = False
    """Whether it has been told that the run has started; what a Tuner does before is not part of it."""
    resumed_from: str | None = None
    epochs: int = 0
    batches: int = 0
    last_loss: float | None = None
    last_epoch: int | None = None
    last_batch: int | None = None
    validated: EpochEnded | None = None
    """The last validation, for the epoch that holds it."""
    device: DeviceClock | None = None
    """Times phases on the device, where asked for."""
    first_progress: tuple[int, float] | None = None
    """Monotonic nanoseconds and progress at the first drain, for the estimate of the end."""
    fresh: Freshness = field(default_factory=Freshness)
    """What stages have logged."""
    step_values: Freshness = field(default_factory=Freshness)
    """What training steps have logged."""

    @property
    def unix_now(self) -> int:
        """Unix nanoseconds."""
        return self.clock.unix_ns(self.clock.now())

    def count(self, block: BatchBlock) -> None:
        """Remember where training has got to."""
        self.batches += len(block)
        self.last_epoch, self.last_batch = block.epoch, int(block.index[-1])
        losses, _ = block.known_losses
        if len(losses):
            self.last_loss = float(losses[-1])
