"""A training process as the exporter sees one: takes a seat, then does what each line on stdin says."""

import json
import os
import sys
import time

from liquid_telemetry.spool import Pulse, RunRecord, RunSeat, spool_dir

seat = RunSeat.take(spool_dir(), RunRecord(**json.loads(sys.argv[1])))
print(os.getpid(), flush=True)
for line in sys.stdin:
    command, argument = json.loads(line)
    if command == "update":
        seat.update(**argument)
    elif command == "publish":
        seat.publish(argument.encode())
    elif command == "beat":
        seat.beat(Pulse(**argument))
    elif command == "fork":
        child = os.fork()
        if child == 0:
            sys.stdin.close()
            os.close(1)
            time.sleep(argument)
            os._exit(0)
    elif command == "release":
        seat.release()
    elif command == "take":
        seat = RunSeat.take(spool_dir(), seat.record)
    elif command == "crash":
        os._exit(argument)
    elif command == "run":
        exec(argument)
    print("done", flush=True)
