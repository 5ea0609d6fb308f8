"""A second process that asks a server as fast as it can, and checks every answer.

    python load.py URL PLAN THREADS [SECONDS]

Prints one line after 100 answers, and at the end how many were right, wrong and lost. Lost is a request of which the
server had read something and that got no answer; the end is where the server takes no more.
"""

import http.client
import json
import sys
import threading
import time
import urllib.parse
from collections import Counter
from pathlib import Path

url, plan, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 3600.0
values, expected = json.loads(plan.read_text())
host = urllib.parse.urlsplit(url).netloc
counts: Counter[str] = Counter()
ends: Counter[str] = Counter()
durations: list[float] = []
lock = threading.Lock()
over = time.monotonic() + seconds


def is_right(which, answer):
    return all(abs(a - b) < 1e-5 for a, b in zip(answer["outputs"][0], expected[which], strict=True))


def note(kind):
    with lock:
        counts[kind] += 1
        if counts["right"] == 100 and kind == "right":
            print("100 answers", flush=True)


def ask(first):
    connection, which, fresh = http.client.HTTPConnection(host, timeout=60), first, True
    headers = {"Content-Type": "application/json"}
    while time.monotonic() < over:
        which = (which + 1) % len(values)
        body = json.dumps({"values": [values[which]]})
        began = time.perf_counter()
        try:
            connection.request("POST", "/predict", body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except ConnectionRefusedError:
            ends["refused"] += 1
            return
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            # An idle connection that the server closes as the request is on its way: nothing of it was read, which the
            # server's own count tells. Ask anew.
            ends["closed before the request was read"] += 1
            connection.close()
            if not fresh:
                fresh = True
                continue
            return
        except (http.client.HTTPException, OSError) as error:
            note("lost")
            print(repr(error), file=sys.stderr)
            return
        durations.append(time.perf_counter() - began)
        fresh = False
        note("right" if answer.status == 200 and is_right(which, json.loads(text)) else "wrong")


workers = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
began = time.monotonic()
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
durations.sort()
print(
    json.dumps(
        {
            **{kind: counts[kind] for kind in ("right", "wrong", "lost")},
            "ends": ends,
            "per_second": counts["right"] / (time.monotonic() - began),
            "p50": durations[len(durations) // 2] if durations else None,
            "p99": durations[int(len(durations) * 0.99)] if durations else None,
        }
    )
)
