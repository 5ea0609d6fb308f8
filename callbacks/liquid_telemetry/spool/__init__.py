"""The spool: small files through which training processes and the exporter process know of each other.

::

    <spool>/exporter.lock         POSIX-locked by the one live exporter
            exporter.json         its address
            targets.json          the same, as a Prometheus file_sd list
            counters.json         totals that outlive exporters
            runs/<run_id>/<rank>.lock   POSIX-locked for the rank's life; free, without a final record: dead
                          <rank>.json   what the rank says of itself (RunRecord)
                          <rank>.prom   its latest metrics, OpenMetrics text
                          <rank>.pulse  where it is and that it goes on (Pulse)
                          <rank>.stacks where its threads write their stacks when signalled
                          <rank>.exit   wait status of its process, where a launcher is its parent
                          started       in a launcher's own: a run has begun under it

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
from liquid_telemetry.spool._launched import (
    LAUNCHER_VARIABLE,
    has_started,
    launched_by,
    read_exit,
    write_exit,
)
from liquid_telemetry.spool._lock import FileLock, is_locked
from liquid_telemetry.spool._pulse import END_OF_STACKS, Pulse, read_pulse
from liquid_telemetry.spool._record import FINAL, RunRecord, read_record, write_atomically
from liquid_telemetry.spool._seat import RunSeat
from liquid_telemetry.spool._sinks import Sink, find_sinks

__all__ = [
    "END_OF_STACKS",
    "FINAL",
    "LAUNCHER_VARIABLE",
    "SPOOL_VARIABLE",
    "ExporterAddress",
    "FileLock",
    "Pulse",
    "RunRecord",
    "RunSeat",
    "Sink",
    "SpoolError",
    "ensure_exporter",
    "exporter_address",
    "find_sinks",
    "has_started",
    "identity",
    "is_locked",
    "launched_by",
    "read_exit",
    "read_pulse",
    "read_record",
    "spool_dir",
    "start_exporter",
    "wait_exporter",
    "write_atomically",
    "write_exit",
]
