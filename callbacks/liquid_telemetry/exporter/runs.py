"""What the spool says of a run: its ranks, who lives, who has died."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

from liquid_telemetry.exporter.components import ComponentErrors
from liquid_telemetry.exporter.outcome import Outcome
from liquid_telemetry.exporter.process import Process
from liquid_telemetry.exporter.snapshots import Snapshot, SnapshotError
from liquid_telemetry.exporter.stalls import PATIENCE, Silence, Stall, find_stall
from liquid_telemetry.live.history import History
from liquid_telemetry.spool import RunRecord, is_locked, read_exit, read_record


class Rank:
    """One rank: its record, whether its process lives, its metrics."""

    def __init__(self, directory: Path, number: int) -> None:
        self.number = number
        self.alive = True
        self.lock = directory / f"{number}.lock"
        self.process = Process()
        self.snapshot = Snapshot(directory / f"{number}.prom")
        self.silence = Silence(directory / f"{number}.pulse")
        self._path = directory / f"{number}.json"
        self.record = self._read()

    def refresh(self) -> None:
        """Look again, at the lock first: a process writes its final record before it goes.

        Raises:
            OSError, ValueError: The record cannot be read; the last one stays.
        """
        self.alive = is_locked(self.lock)
        try:
            self.record = self._read()
        finally:
            status = None if self.alive else read_exit(self._path.with_suffix(".exit"))
            self.process.look(self.record, alive=self.alive, status=status)

    def _read(self) -> RunRecord:
        try:
            return read_record(self._path)
        except (ValueError, TypeError) as error:
            self._path.replace(self._path.with_suffix(".damaged"))
            raise ValueError(f"{self._path} is damaged and was moved aside: {error}") from error

    @property
    def died(self) -> bool:
        """Whether the process is gone without a final record."""
        return not self.alive and not self.record.final

    @property
    def over(self) -> bool:
        """Whether it has nothing more to say about the outcome."""
        return not self.alive or self.record.final


class Run:
    """A run as the exporter keeps it; times are monotonic seconds.

    ``label`` is the model under which it is counted, ``slot`` its number among the live runs of that model,
    ``stall`` what is known of its making no progress for too long, ``patience`` the least silence that can be one,
    ``scrapes`` how many scrapes have received its end,
    ``retired`` whether its series have gone, ``closing`` the work on what a dead process left open, ``measured`` when
    its metrics were last looked at.
    """

    def __init__(self, directory: Path, patience: float = PATIENCE) -> None:
        self.run_id = directory.name
        self.directory = directory
        self.ranks: dict[int, Rank] = {}
        self.label = ""
        self.slot: int | None = None
        self.outcome: Outcome | None = None
        self.patience = patience
        self.stall: Stall | None = None
        self.died_at: float | None = None
        self.ended_at: float | None = None
        self.scrapes = 0
        self.retired = False
        self.closing: Future[None] | None = None
        self.measured = float("-inf")
        self.history: History | None = None
        self.course_ended = False
        self.errors = ComponentErrors()

    def refresh(self, now: float) -> Iterator[Exception]:
        """Look at all ranks again; yields what could not be read."""
        on_disk = {int(path.stem) for path in self.directory.glob("*.json") if path.stem.isdecimal()}
        for number in sorted(self.ranks.keys() | on_disk):
            try:
                if number not in self.ranks:
                    self.ranks[number] = Rank(self.directory, number)
                self.ranks[number].refresh()
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                yield error
        self._note_changes(now)
        self._listen(now)

    def _listen(self, now: float) -> None:
        """See whether it goes on. The dead are silent: of them only a last pulse that was not seen yet counts."""
        for rank in self.ranks.values():
            rank.silence.look(now, alive=rank.alive)
        judged = [rank for rank in self.ranks.values() if not rank.record.final]
        alive = [rank for rank in judged if rank.alive]
        if alive or not any(rank.died for rank in judged):
            self.stall = find_stall([(rank.number, rank.silence) for rank in alive], self.patience)
        elif any(rank.silence.seconds == 0 for rank in judged):
            self.stall = None

    @property
    def stalled(self) -> bool:
        """Whether it has made no progress for too long; of a dead one, whether it had not when it died."""
        return self.stall is not None

    def _note_changes(self, now: float) -> None:
        if any(rank.died for rank in self.ranks.values()):
            self.died_at = self.died_at or now
        if self.live:
            self.ended_at, self.scrapes = None, 0
            if self.retired:  # it goes on, but its slot is another's
                self.retired, self.slot = False, None
        elif self.ended_at is None:
            self.ended_at = now

    def measure(self, now: float) -> Iterator[Rank | SnapshotError]:
        """Look at the metrics; yields the ranks that have new ones, and what could not be read."""
        self.measured = now
        for rank in self.ranks.values():
            try:
                if rank.snapshot.refresh(now):
                    yield rank
            except SnapshotError as error:
                yield error
        if not self.ranks:
            return
        self.errors.note((rank.snapshot for rank in self.ranks.values()), now)

    @property
    def live(self) -> bool:
        """Whether a rank holds its seat: also after the outcome is known, while ``test`` goes on after ``fit``."""
        return any(rank.alive for rank in self.ranks.values())

    @property
    def undecided(self) -> bool:
        """Whether a rank of it has died, and others may yet say why."""
        return self.job and self.died_at is not None and self.outcome is None

    @property
    def told(self) -> bool:
        """Whether it has ended, and what is to be said of its end is known."""
        return self.ended_at is not None and not self.undecided

    @property
    def launching(self) -> bool:
        """Whether it is but the seat of a launcher whose command may yet start a run."""
        return self.record.status == "launching"

    @property
    def lead(self) -> Rank:
        """The lowest rank: its record and its metrics speak for the run."""
        return self.ranks[min(self.ranks)]

    @property
    def record(self) -> RunRecord:
        """The lowest rank's record."""
        return self.lead.record

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.record.model_name

    @property
    def refused(self) -> bool:
        """Whether its model found no place: it is counted, but its series are not shown."""
        return self.label != self.model

    @property
    def shown(self) -> bool:
        """Whether its series are served."""
        return not self.retired and not self.refused and self.slot is not None

    @property
    def job(self) -> bool:
        """Whether its outcome is counted."""
        return any(rank.record.job for rank in self.ranks.values())

    @property
    def is_home(self) -> bool:
        """Whether this is the node that counts it: of several, each has an exporter that sees its own ranks."""
        return any(rank.record.node == 0 for rank in self.ranks.values())

    @property
    def state(self) -> str:
        """One of the catalogue's job states."""
        if self.outcome is not None:
            return self.outcome.kind
        if not self.live and not self.undecided:
            return "completed"
        if self.stalled:
            return "stalled"
        return "starting" if self.record.status == "starting" else "running"
