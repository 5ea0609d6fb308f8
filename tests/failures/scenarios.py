"""Every way a job can fail, and what is to be seen of it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scenario:
    """One way.

    Args:
        name: Also the model's, so that its series and pages are its own.
        what: In words.
        options: Of ``job.py``.
        play: Which method of :class:`failures.plays.Play` runs it.
        totals: Jobs by ``failed/REASON``, ``interrupted/REASON``, ``completed`` and ``started``.
        alerts: Those that are due, each once.
        events: Events in the logs that tell of its end, and of stalls; None where several ranks tell.
        fast: Whether it is in the quick part.
    """

    name: str
    what: str
    options: tuple[str, ...] = ()
    play: str = "alone"
    totals: dict[str, int] = field(default_factory=dict)
    alerts: tuple[str, ...] = ()
    events: tuple[str, ...] | None = None
    fast: bool = False


def _failing(name: str, what: str, *options: str, reason: str = "exception", **more: object) -> Scenario:
    return Scenario(
        name,
        what,
        options,
        totals={"started": 1, f"failed/{reason}": 1},
        alerts=("TrainingJobFailed",),
        events=more.pop("events", ("training_failed",)),  # type: ignore[arg-type]
        **more,  # type: ignore[arg-type]
    )


def _at(place: str, act: str = "raise", *more: str) -> tuple[str, ...]:
    return "--at", place, "--do", act, *more


_LONG = ("--epochs", "400")
_STEADY = ("--epochs", "1", "--batches", "4000")  # a long epoch: its batches are a phase of their own
_TWO = ("--devices", "2", "--rank", "1")

SCENARIOS = (
    _failing("raise-in-step", "exception in `training_step`", *_at("training_step"), fast=True),
    _failing("raise-in-validation", "exception in `validation_step`", *_at("validation_step")),
    _failing("raise-in-setup", "exception in the module's `setup`", *_at("setup", "raise", "--from", "0")),
    _failing("raise-in-data-setup", "exception in the data module's `setup`",
             *_at("datamodule.setup", "raise", "--from", "0")),
    _failing("raise-in-configure", "exception in `configure_optimizers`",
             *_at("configure_optimizers", "raise", "--from", "0")),
    _failing("raise-in-callback", "exception in another callback", *_at("callback")),
    _failing("raise-twice", "exception, and another callback's `on_exception` raises before ours",
             *_at("training_step", "raise", "--again")),
    _failing("memory-error", "`MemoryError`", *_at("training_step", "memory"), reason="out_of_memory"),
    _failing("sys-exit", "`sys.exit(3)`", *_at("training_step", "sys.exit"), reason="exited"),
    _failing("hard-exit", "`os._exit(3)`", *_at("training_step", "os._exit"), reason="exited"),
    _failing("segfault", "segmentation fault", *_at("training_step", "segfault"), reason="crashed"),
    _failing("killed", "SIGKILL", *_LONG, play="killed", reason="killed", fast=True),
    Scenario("terminated", "SIGTERM", _LONG, "terminated", {"started": 1, "interrupted/terminated": 1},
             ("TrainingJobInterrupted",), ("training_interrupted",), fast=True),
    Scenario("ctrl-c", "Ctrl-C", _LONG, "interrupted", {"started": 1, "interrupted/user": 1}, (),
             ("training_interrupted",)),
    _failing("worker-raises", "exception in a DataLoader worker", *_at("worker")),
    _failing("worker-killed", "a DataLoader worker is killed", *_at("worker", "kill")),
    Scenario("hang", "hang, then killed", (*_at("training_step", "hang", "--from", "0"), *_STEADY), "hung",
             {"started": 1, "failed/stalled": 1}, ("TrainingStalled", "TrainingJobFailed"),
             ("training_stalled", "training_failed"), fast=True),
    Scenario("hang-with-gil", "hang while the interpreter is locked, then killed",
             (*_at("training_step", "hang-with-gil", "--from", "0"), *_STEADY), "hung",
             {"started": 1, "failed/stalled": 1}, ("TrainingStalled", "TrainingJobFailed"),
             ("training_stalled", "training_failed")),
    Scenario("hang-recovers", "hang that ends", (*_at("training_step", "hang", "--from", "0"), "--epochs", "1"),
             "recovers", {"started": 1, "completed": 1}, ("TrainingStalled",),
             ("training_stalled", "training_recovered", "training_completed")),
    Scenario("nan", "loss of NaN", _at("training_step", "nan"), "alone", {"started": 1, "completed": 1},
             ("TrainingLossNotFinite",), ("training_nonfinite_loss", "training_completed")),
    _failing("nan-ends", "loss of NaN, and the run is told to stop then",
             *_at("training_step", "nan", "--stop-on-nonfinite"), reason="nonfinite",
             events=("training_nonfinite_loss", "training_failed")),
    _failing("import-error", "import error, under the launcher", play="import_error"),
    _failing("exporter-killed", "the exporter is killed, later the trainer", *_LONG, play="exporter_killed",
             reason="killed"),
    Scenario("both-killed", "trainer and exporter are killed together, and a next run comes", _LONG, "both_killed",
             {"started": 2, "failed/unknown": 1, "completed": 1}, ("TrainingJobFailed",),
             ("training_failed", "training_completed")),
    Scenario("gone", "trainer and exporter are killed together, and nobody comes", _LONG, "gone", {"started": 1},
             ("TrainingJobVanished",), ()),
    Scenario("crash-loop", "five runs in a row fail", _at("training_step"), "five",
             {"started": 5, "failed/exception": 5}, ("TrainingJobFailed",), ("training_failed",) * 5),
    Scenario("three-at-once", "three runs of a model at once, one is killed", ("--epochs", "12"), "three",
             {"started": 3, "failed/killed": 1, "completed": 2}, ("TrainingJobFailed",),
             ("training_completed", "training_completed", "training_failed")),
    _failing("ddp-raises", "two ranks under `ddp`, one raises", *_at("training_step"), "--strategy", "ddp", *_TWO,
             events=None),
    _failing("ddp-killed", "two ranks under `ddp`, one is killed", *_at("training_step", "kill"), "--strategy", "ddp",
             *_TWO, reason="killed", events=None),
    _failing("ddp-spawn-raises", "two ranks under `ddp_spawn`, one raises", *_at("training_step"), "--strategy",
             "ddp_spawn", *_TWO, events=None),
    _failing("torchrun-raises", "two ranks under `torchrun`, one raises", *_at("training_step"), "--strategy", "ddp",
             *_TWO, play="torchrun", events=None),
    _failing("torchrun-killed", "two ranks under `torchrun`, one is killed", *_at("training_step", "kill"),
             "--strategy", "ddp", *_TWO, reason="killed", play="torchrun", events=None),
    _failing("cell-raises", "a notebook's cell raises, and the kernel lives on", *_at("training_step"), play="cell"),
    _failing("kernel-killed", "a notebook's kernel is killed", *_LONG, play="kernel_killed", reason="killed"),
    Scenario("completed", "nothing", (), "alone", {"started": 1, "completed": 1}, (), ("training_completed",),
             fast=True),
)  # fmt: skip
