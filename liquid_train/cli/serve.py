"""`liquid-train serve`: a trained checkpoint over HTTP and WebSocket."""

from __future__ import annotations

import argparse
import math
import os
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from liquid_train.cli.launch import port
from liquid_train.cli.options import Options, at_least
from liquid_train.cli.terminate import exit_on_sigterm
from liquid_train.errors import InputError
from liquid_train.serve.settings import Limits, Settings

DESCRIPTION = """Serve a trained checkpoint: whole sequences at POST /predict, one sequence step by step at the
WebSocket /stream, what is served at /model, and /health, /ready, /live, /metrics, /openapi.json.

  liquid-train serve --ckpt runs/RUN/checkpoints/best.ckpt
  liquid-train serve --ckpt best.ckpt --port 8080 --environment production
  liquid-train serve --ckpt best.ckpt --host 0.0.0.0 --token-file /run/secrets/token

  curl -s localhost:8000/predict --json '{"values": [[[0.1], [0.2], [0.4]]]}'

Ctrl-C or SIGTERM ends it, when everything that was accepted has been answered. docs/serving.md has the rest."""
PACKAGES = ("fastapi", "uvicorn", "websockets")
_ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def positive(text: str) -> float:
    """Read a number above zero.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return number


def _milliseconds(text: str) -> float:
    return 0.0 if text == "0" else positive(text) / 1000


def _environment(text: str) -> str:
    if not _ENVIRONMENT.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be 1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit"
        )
    return text


LIMITS: tuple[tuple[str, str, Callable[[str], float], float, str], ...] = (
    ("max-batch", "batch", at_least(1), 64, "series that go through the model together"),
    (
        "max-wait-ms",
        "wait",
        _milliseconds,
        0,
        "how long a request waits for others although the model is idle",
    ),
    ("max-payload", "payload", at_least(1), 1_048_576, "bytes of a body or of a stream's message"),
    ("max-series", "series", at_least(1), 256, "series of one request"),
    ("max-steps", "steps", at_least(1), 10_000, "time steps of one series"),
    ("max-concurrent", "concurrent", at_least(1), 64, "requests that are answered at once"),
    ("max-streams", "streams", at_least(0), 64, "streams open at once"),
    ("idle", "idle", positive, 60, "seconds after which a silent stream is closed"),
    ("patience", "patience", positive, 15, "seconds for a client to send its body or to read its answer"),
    ("grace", "grace", positive, 30, "seconds for what was accepted to be answered at the end"),
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = Options("serve", DESCRIPTION)
    made.add_argument("--ckpt", required=True, metavar="FILE", help="checkpoint that liquid-train fit wrote")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    made.add_argument(
        "--port", type=port, default=8000, help="its port; 0 for a free one (default: %(default)s)"
    )
    made.add_argument("--environment", type=_environment, default="development", metavar="NAME",
                      help="label of active_models, such as production (default: %(default)s)")  # fmt: skip
    made.add_argument("--token-file", metavar="FILE", help="file with the token that clients must send")
    made.add_argument("--token-env", metavar="NAME", help="environment variable with the token")
    made.add_argument("--dir", default="runs", help="folder for events and traces (default: %(default)s)")
    made.add_argument("--threads", type=at_least(1), default=1, metavar="N",
                      help="threads of one torch operation, 1 is fastest for small networks (default: 1)")  # fmt: skip
    made.add_argument("--no-exporter", action="store_true",
                      help="show the metrics at /metrics alone, not by the exporter of this host, too")  # fmt: skip
    limits = made.add_argument_group("limits")
    for option, _, kind, default, text in LIMITS:
        limits.add_argument(f"--{option}", type=kind, metavar="N", help=f"{text} (default: {default})")
    return made


def serve(arguments: Sequence[str]) -> int:
    """Serve until a signal.

    Raises:
        InputError: an option is wrong, a package is missing, or the checkpoint or the address cannot be had.
        SystemExit: SIGTERM ended it.
        KeyboardInterrupt: Ctrl-C did.
    """
    options = parser().parse_args(arguments)
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"serve: needs {', '.join(missing)}: pip install 'liquid-train[serve]'")
    token = find_token(options.token_file, options.token_env)
    with exit_on_sigterm():
        from liquid_train.serve.run import serve as run

        run(_settings(options, token))
    return 0


def _settings(options: Namespace, token: str | None) -> Settings:
    chosen = {name: getattr(options, option.replace("-", "_")) for option, name, *_ in LIMITS}
    return Settings(
        checkpoint=options.ckpt,
        host=options.host,
        port=options.port,
        environment=options.environment,
        token=token,
        exporter=not options.no_exporter,
        dir=options.dir,
        threads=options.threads,
        limits=Limits(**{name: value for name, value in chosen.items() if value is not None}),
    )


def find_token(file: str | None, variable: str | None) -> str | None:
    """Return the token that an operator has set, without white space around it.

    Raises:
        InputError: it is set twice, cannot be read, is empty, or is not plain ASCII.
    """
    if file is not None and variable is not None:
        raise InputError("serve: --token-file and --token-env; set one of them")
    if file is None and variable is None:
        return None
    if file is not None:
        given = f"--token-file={file}"
        try:
            text = Path(file).read_text("utf-8")
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "is not text"
            raise InputError(f"serve: {given}: {reason}; name a file with the token") from error
    else:
        given, text = f"--token-env={variable}", os.environ.get(variable or "", "")
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise InputError(f"serve: {given}: must hold a token of printable ASCII characters")
    return token
