"""Lines of event logs in a DuckDB database of their own: what a report needs of each, and nothing else."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from liquid_train.errors import InputError
from liquid_train.logs.lines import LONGEST, copy_readable, open_log, printable, read_lines

SHOWN = 5
"""Unparsable lines that are shown, of all files together."""
_SETTINGS = (
    "TimeZone = 'UTC'",
    "enable_progress_bar = true",  # counted only then
    "enable_progress_bar_print = false",
    "progress_bar_time = 0",
)
_AT_ONCE, _BATCH_BYTES = 256, 64 * 1024 * 1024
_READ = "read_json_objects(?, format='newline_delimited', ignore_errors=true, maximum_object_size={}, filename=true)"
_SOURCE = _READ.format(LONGEST)
_TIME = """
CASE WHEN try_cast({} AS TIMESTAMPTZ) BETWEEN '1970-01-01' AND '2262-01-01' THEN try_cast({} AS TIMESTAMPTZ)::TIMESTAMP
WHEN try_cast({} AS DOUBLE) BETWEEN 1e8 AND 9e9 THEN to_timestamp(try_cast({} AS DOUBLE))::TIMESTAMP END
"""
_NUMBER = "CASE WHEN isfinite(try_cast({} AS DOUBLE)) THEN try_cast({} AS DOUBLE) END"
_FIELDS = {
    "time": ("timestamp", _TIME),
    "level": ("level", "lower({}[:40])"),
    "event": ("event", "{}[:200]"),
    "run": ("run_id", "{}[:200]"),
    "model": ("model_name", "{}[:200]"),
    "stage": ("stage", "{}[:40]"),
    "epoch": ("epoch", "try_cast({} AS BIGINT)"),
    "loss": ("loss", _NUMBER),
    "val_loss": ("val_loss", _NUMBER),
    "duration": ("duration_seconds", _NUMBER),
    "batches": ("batches", "try_cast({} AS BIGINT)"),
    "reason": ("reason", "{}[:100]"),
    "error_type": ("error_type", "{}[:200]"),
    "message": ("error_message", "{}[:300]"),
    "validation": ("phases.validation", _NUMBER),
}
"""Columns of the table, the field that each is taken from, and how."""
_PATHS = ", ".join(f"'$.{path}'" for path, _ in _FIELDS.values())
_COLUMNS = ", ".join(
    how.replace("{}", f"found[{place}]") + f" AS {name}"
    for place, (name, (_, how)) in enumerate(_FIELDS.items(), 1)
)
_INSERT = f"""
INSERT INTO lines SELECT file, ok, {_COLUMNS} FROM (
    SELECT coalesce(starts_with(json::VARCHAR, '{{'), false) AS ok,
        CASE WHEN NOT ok THEN coalesce($1, filename) END AS file,
        CASE WHEN ok THEN json_extract_string(json, [{_PATHS}]) END AS found
    FROM {_SOURCE.replace("?", "$2")})
"""  # noqa: S608
_EMPTY = f"""
CREATE TABLE lines AS SELECT ''::VARCHAR AS file, true AS ok, {_COLUMNS}
FROM (SELECT []::VARCHAR[] AS found) WHERE false
"""  # noqa: S608
_BAD = f"""
SELECT number FROM (SELECT json, row_number() OVER () AS number FROM {_SOURCE})
WHERE NOT coalesce(starts_with(json::VARCHAR, '{{'), false) LIMIT ?
"""  # noqa: S608


@dataclass
class Reading:
    """What was read.

    Args:
        files: How many.
        size: Their bytes, as they lie on disk.
        lines: All that are not blank.
        unparsable: Those of them that are no JSON object in UTF-8.
        shown: The first few of these: file, line number from one, and its beginning.
        damaged: Files that could not be read to their end, and why.
    """

    files: int = 0
    size: int = 0
    lines: int = 0
    unparsable: int = 0
    shown: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[dict[str, str]] = field(default_factory=list)


class Store:
    """The table ``lines`` of everything that is read; a context manager, for what exceeds memory lies on disk.

    Args:
        memory: Most that DuckDB takes, such as ``1GB``.

    Raises:
        InputError: DuckDB is not installed, or does not know that much memory.
    """

    def __init__(self, memory: str = "1GB") -> None:
        try:
            import duckdb
        except ModuleNotFoundError as error:
            raise InputError("logs: needs duckdb: pip install 'liquid-train[logs]'") from error
        self._errors = (duckdb.InvalidInputException, duckdb.IOException)
        self._too_little = duckdb.OutOfMemoryException
        self._folder = tempfile.TemporaryDirectory(prefix="liquid-train-logs-")
        self._dir = Path(self._folder.name)
        self.reading = Reading()
        self._now = 0
        try:
            self.db = duckdb.connect(":memory:", config=self._settings(memory))
        except duckdb.Error as error:
            self._folder.cleanup()
            raise InputError(
                f"logs: --memory={memory!r}: {str(error).splitlines()[0]}; give one like 1GB"
            ) from error
        self._tells_progress = hasattr(self.db, "query_progress")
        for setting in _SETTINGS:
            self.db.execute(f"SET {setting}")
        self.db.execute(_EMPTY)

    def _settings(self, memory: str) -> dict[str, Any]:
        threads = min(os.cpu_count() or 1, 8)
        return {
            "memory_limit": memory,
            "threads": threads,
            "temp_directory": str(self._dir / "spill"),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
        }

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.db.close()
        self._folder.cleanup()
        if isinstance(error, self._too_little):
            raise InputError("logs: --memory is too little for these logs; give more, such as 1GB") from error

    def bytes_read(self) -> float:
        """Bytes that have been read so far; may be asked by another thread."""
        share = max(self.db.query_progress(), 0.0) / 100 if self._now and self._tells_progress else 0.0
        return self.reading.size + share * self._now

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Run a query and return its rows by column name."""
        found = self.db.execute(query, list(values))
        names = [column[0] for column in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def read(self, files: Sequence[Path]) -> Reading:
        """Read logs."""
        for batch in _batches(files):
            self._now = sum(size for _, size in batch)
            try:
                self._insert([path for path, _ in batch])
            except self._errors:
                for path, _ in batch:
                    self._read_one(path)
            self.reading.files += len(batch)
            self.reading.size, self._now = self.reading.size + self._now, 0
        bad = self.rows("SELECT file, count(*) AS lines FROM lines WHERE NOT ok GROUP BY file ORDER BY file")
        self.reading.unparsable = sum(row["lines"] for row in bad)
        for row in bad:
            self._show(Path(row["file"]), row["file"])
        self.reading.lines = self.rows("SELECT count(*) AS lines FROM lines")[0]["lines"]
        return self.reading

    def _insert(self, paths: Sequence[Path], name: str | None = None) -> None:
        self.db.execute(_INSERT, [name, [_pattern(path) for path in paths]])

    def _read_one(self, path: Path) -> None:
        try:
            self._insert([path])
        except self._errors:
            copy = self._dir / "readable.jsonl"
            cause = copy_readable(path, copy)
            if cause is not None:
                self.reading.damaged.append({"file": str(path), "cause": cause})
            self._insert([copy], str(path))
            self._show(copy, str(path))
            copy.unlink()

    def _show(self, path: Path, name: str) -> None:
        """Note the first unparsable lines of a file, unless enough are known or it is among those already."""
        room = SHOWN - len(self.reading.shown)
        if room <= 0 or any(line["file"] == name for line in self.reading.shown):
            return
        if path.suffix == ".zst":
            text = "(unpack it with zstd to see its unparsable lines)"
            self.reading.shown.append({"file": name, "line": None, "text": text})
            return
        wanted = {row["number"] for row in self.rows(_BAD, [_pattern(path)], room)}
        with open_log(path) as file:
            numbered = ((number, line) for number, line in enumerate(read_lines(file), 1) if line.strip())
            for place, (number, line) in enumerate(numbered, 1):
                if place in wanted:
                    wanted.discard(place)
                    self.reading.shown.append({"file": name, "line": number, "text": printable(line)})
                if not wanted:
                    break


def _pattern(path: Path) -> str:
    """The pattern that means this file alone, for DuckDB takes a name for one."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def _batches(files: Sequence[Path]) -> Iterator[list[tuple[Path, int]]]:
    """Yield files and their sizes, small ones together."""
    batch: list[tuple[Path, int]] = []
    for path in files:
        batch.append((path, path.stat().st_size))
        if len(batch) >= _AT_ONCE or sum(size for _, size in batch) >= _BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch
