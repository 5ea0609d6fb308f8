"""The points of a live run, kept on disk beside its log, so that they survive the exporter."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path

from liquid_telemetry.live.points import Point, Points, decode, encode
from liquid_telemetry.spool import write_atomically

FILE = "history.jsonl"
_MAX_BYTES = 4_000_000


class History:
    """Points in memory and in a file.

    The file is read and written in the background, one task at a time, because a disk that hangs must not hold up a
    scrape. Lines are appended; when points are thinned, the file is written anew.

    Args:
        path: The file; its folder must be there.
        background: Where reading and writing are done.
        report: Gets what went wrong.
    """

    def __init__(self, path: Path, background: Executor, report: Callable[[Exception], None]) -> None:
        self.path = path
        self.points = Points()
        self._background = background
        self._report = report
        self._loaded: Points | None = None
        self._written = 0
        self._version = -1
        self._task: Future[None] | None = background.submit(self._load)

    def add(self, point: Point) -> None:
        """Add the newest point, and write down those that stay."""
        self.points.add(point)
        self._sync(last=False)

    def finish(self) -> None:
        """Write down the last point, too."""
        self._sync(last=True)

    @property
    def settled(self) -> bool:
        """Whether the file has been read and nothing is being written."""
        return self._task is None or self._task.done()

    def _sync(self, last: bool) -> None:
        if not self.settled:
            return
        self._take_over()
        points = self.points
        count = len(points) if last else points.kept
        anew = self._version != points.version
        start = 0 if anew else self._written
        if count <= start:
            return
        text = "".join(encode(points.point(index)) for index in range(start, count))
        self._written, self._version = count, points.version
        self._submit(self._rewrite if anew else self._append, text)

    def _take_over(self) -> None:
        """Put what an earlier exporter wrote before what has been seen since."""
        loaded, self._loaded = self._loaded, None
        if loaded is None or not len(loaded):
            return
        for index in range(len(self.points)):
            loaded.add(self.points.point(index))
        loaded.version = self.points.version + 1
        self.points = loaded

    def _submit(self, write: Callable[[str], None], text: str) -> None:
        def task() -> None:
            try:
                write(text)
            except OSError as error:  # the next thinning writes all of it
                self._report(error)

        try:
            self._task = self._background.submit(task)
        except RuntimeError:  # the exporter is leaving
            self._task = None

    def _load(self) -> None:
        try:
            self._loaded = read(self.path)
        except OSError as error:
            self._report(error)

    def _rewrite(self, text: str) -> None:
        if self.path.parent.is_dir():
            write_atomically(self.path, text.encode())
        else:
            self._version = -1

    def _append(self, text: str) -> None:
        if self.path.is_file():
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        else:  # deleted by the user, who is not to find half of it again
            self._version = -1


def read(path: Path) -> Points:
    """Read a file of points; none where there is no file.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return Points()
    return decode(data.decode("utf-8", "replace").splitlines())
