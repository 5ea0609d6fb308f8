"""The spool: small files through which training processes and the exporter process know of each other.

::

    <spool>/exporter.lock         POSIX-locked by the one live exporter
            exporter.json         its address
            targets.json          the same, as a Prometheus file_sd list
            counters.json         totals that outlive exporters
            runs/<run_id>/<rank>.lock   POSIX-locked for the rank's life; free, without a final record: dead
                          <rank>.json   what the rank says of itself (RunRecord)
                          <rank>.prom   its latest metrics, OpenMetrics text

Standard library only; both sides import it.
"""

from liquid_telemetry.spool._directory import SPOOL_VARIABLE, SpoolError, spool_dir
from liquid_telemetry.spool._identity import identity
from liquid_telemetry.spool._launch import (
    ExporterAddress,
    ensure_exporter,
    exporter_address,
    start_exporter,
    wait_exporter,
)
from liquid_telemetry.spool._lock import FileLock, is_locked
from liquid_telemetry.spool._record import FINAL, RunRecord, read_record, write_atomically
from liquid_telemetry.spool._seat import RunSeat

__all__ = [
    "FINAL",
    "SPOOL_VARIABLE",
    "ExporterAddress",
    "FileLock",
    "RunRecord",
    "RunSeat",
    "SpoolError",
    "ensure_exporter",
    "exporter_address",
    "identity",
    "is_locked",
    "read_record",
    "spool_dir",
    "start_exporter",
    "wait_exporter",
    "write_atomically",
]
