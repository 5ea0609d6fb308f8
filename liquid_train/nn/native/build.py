"""Compile the kernels for the machine at hand, once: the result is kept in the user's cache.

The key of a build is everything it depends on: sources, flags, compiler and CPU.
"""

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent
_FLAGS = (
    "-O3",
    "-std=c++17",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    # A loop that lies in more cache lines than it needs waits for its instructions: up to 1.6 times as long.
    "-falign-loops=64",
    "-fPIC",
    "-pthread",
)
_TARGETS = (("-march=native",), ("-mcpu=native",), ())
_SECONDS = 300


class BuildError(Exception):
    """The kernels cannot be built; the message says why, in one line."""


def built_library() -> Path:
    """Return the shared library, compiled now unless the cache has it.

    Raises:
        BuildError: If there is no compiler, it fails, or the cache cannot be written.
    """
    if sys.platform == "win32":
        raise BuildError("the kernels need a POSIX system")
    compiler = _compiler()
    try:
        folder = _cache()
        library = folder / f"{_key(compiler)}.so"
        if not library.exists():
            with _locked(library.with_suffix(".lock")):
                if not library.exists():
                    begin = time.monotonic()
                    _compile(compiler, library)
                    log.info("the C++ kernels of CfC and LTC are built: %.0f s", time.monotonic() - begin)
    except (OSError, RuntimeError) as error:  # the second where a process has no home
        raise BuildError(f"the cache cannot be used: {error}") from error
    return library


def _compiler() -> str:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    raise BuildError(f"no C++ compiler ({', '.join(names)}) is on PATH")


def _cache() -> Path:
    """Return the user's own folder for builds: code is loaded from it, so nobody else may write there."""
    root = os.environ.get("LIQUID_TRAIN_CACHE") or os.environ.get("XDG_CACHE_HOME")
    folder = Path(root or Path.home() / ".cache") / "liquid-train"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise OSError(f"{folder} can be written by others: make it your own with mode 0700")
    return folder


def _key(compiler: str) -> str:
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for text in (*_FLAGS, compiler, _run([compiler, "--version"]), platform.machine(), _cpu()):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:32]


def _cpu() -> str:
    """Return what tells CPUs with other instructions apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(compiler: str, library: Path) -> None:
    """Write the library under its name only when it is whole."""
    error: BuildError | None = None
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        for target in _TARGETS:
            try:
                made = _link([compiler, *_FLAGS, *target], Path(folder))
            except BuildError as failure:
                error = error or failure
                continue
            made.replace(library)
            return
    assert error is not None
    raise error


def _link(command: list[str], folder: Path) -> Path:
    """Compile the sources, as many at a time as there are cores, and return the library of them."""
    # The largest first: the last to end should not begin last.
    sources = sorted(SOURCES.glob("*.cpp"), key=lambda path: path.stat().st_size, reverse=True)
    objects = [str(folder / f"{source.stem}.o") for source in sources]
    commands = [
        [*command, "-c", str(source), "-o", made] for source, made in zip(sources, objects, strict=True)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, commands))
    library = folder / "library.so"
    _run([*command, "-shared", *objects, "-o", str(library)])
    return library


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} did not run: {error}") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise BuildError(f"{command[0]} failed: {lines[0] if lines else f'exit {done.returncode}'}")
    return done.stdout
