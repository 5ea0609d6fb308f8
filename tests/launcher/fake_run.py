"""A training process as the exporter sees one: takes a seat as a model's run, then runs the code it is given."""

import os
import signal  # noqa: F401
import sys
import time  # noqa: F401

from liquid_telemetry.spool import RunRecord, RunSeat, spool_dir, start_exporter

model, code = sys.argv[1:]
seat = RunSeat.take(spool_dir(), RunRecord(f"run-{os.getpid()}", model, status="running"))
start_exporter(spool_dir(), port=0)
exec(code)
