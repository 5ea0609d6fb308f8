"""The kernels are built once, whole, or not at all: then one line says so and the numbers are the same."""

import ctypes
import logging
import os
import platform
import shutil
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from servers import binary

from liquid_train.nn import LTC, CfC
from liquid_train.nn.native import build, library

LOADER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("build", sys.argv[1])
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
print(build.built_library())
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A process that has not asked for the kernels yet, with an empty cache."""
    monkeypatch.setattr(library, "_once", library._Once())
    monkeypatch.setenv("LIQUID_TRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)


def fake_compiler(folder, body):
    """Write a compiler that tells its version, notes each library, and does ``body`` with ``$out``."""
    path = folder / "compiler"
    path.write_text(
        textwrap.dedent(f"""\
        #!/bin/sh
        if [ "$1" = --version ]; then echo fake; exit; fi
        for out; do :; done
        case "$out" in *.so) echo built >> {folder}/builds;; esac
        {body}
        """)
    )
    path.chmod(0o755)
    return path


def outputs():
    torch.manual_seed(3)
    return [layer(torch.randn(4, 5, 3))[0] for layer in (CfC(3, 8), LTC(3, 8))]


def test_without_a_compiler_one_line_is_logged_and_the_numbers_are_the_same(monkeypatch, tmp_path, caplog):
    with library.without_kernels():
        expected = outputs()
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.INFO, "liquid_train"):
        found = [outputs(), outputs()]
    for part in found:
        for mine, plain in zip(part, expected, strict=True):
            assert torch.equal(mine, plain)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no C++ compiler (c++, g++, clang++) is on PATH" in record.getMessage()


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path, caplog):
    compiler = fake_compiler(tmp_path, "echo 'x.cpp:1: error: no such vector' >&2; exit 1")
    monkeypatch.setenv("CXX", str(compiler))
    with caplog.at_level(logging.INFO, "liquid_train"):
        assert library.native() is None
        assert library.native() is None
    (record,) = caplog.records
    assert "error: no such vector" in record.getMessage()
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_a_process_without_a_home_does_without(monkeypatch, caplog):
    for name in ("HOME", "XDG_CACHE_HOME", "LIQUID_TRAIN_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def lost():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", lost)
    assert library.native() is None
    (record,) = caplog.records
    assert "the cache cannot be used: Could not determine home directory." in record.getMessage()


def test_a_library_that_cannot_be_loaded_is_refused(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, 'echo nonsense > "$out"')))
    assert library.native() is None
    assert "cannot be loaded" in caplog.text


@pytest.mark.parametrize(
    ("kind", "name", "out"),
    [
        ("_function", "ltc_forward", None),
        ("_step", "cfc_step", 6),
        ("_step", "ltc_step", 7),
        ("_stream", "cfc_stream", 4),
        ("_stream", "ltc_stream", 4),
    ],
)
def test_kernels_that_give_other_numbers_are_not_used(kind, name, out, monkeypatch, caplog):
    binary("c++")
    monkeypatch.delenv("LIQUID_TRAIN_CACHE")
    wrap = getattr(library, kind)

    def wrapped(*arguments):
        right = wrap(*arguments)

        def wrong(*call):
            if out is None:
                call[0].epsilon += 0.1
            right(*call)
            if out is not None:
                ctypes.c_float.from_address(call[out]).value += 0.01

        asked = arguments[1] if kind == "_function" else arguments[0].__name__
        return wrong if asked == name else right

    monkeypatch.setattr(library, kind, wrapped)
    assert library.native() is None
    assert caplog.messages == [
        "CfC and LTC run without their C++ kernels, more slowly: "
        "built by this compiler they give other numbers than PyTorch"
    ]


@contextmanager
def default_device():
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "mode",
    [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu"), default_device, default_dtype],
    ids=["inference mode", "no grad", "autocast", "default device", "default dtype"],
)
def test_the_first_call_may_be_in_any_mode(mode, monkeypatch, caplog):
    binary("c++")
    monkeypatch.delenv("LIQUID_TRAIN_CACHE")
    with mode():
        assert library.native() is not None
    assert not caplog.records


def test_a_check_that_fails_is_one_line(monkeypatch, caplog):
    binary("c++")
    monkeypatch.delenv("LIQUID_TRAIN_CACHE")

    def fail(_):
        raise RuntimeError("no memory")

    monkeypatch.setattr("liquid_train.nn.fast.native_check.are_right", fail)
    assert library.native() is None
    assert caplog.messages[0].endswith("they could not be checked: RuntimeError: no memory")


def test_switched_off_by_the_environment_nothing_is_built_or_said(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("LIQUID_TRAIN_NATIVE", "0")
    assert library.native() is None
    assert not (tmp_path / "cache").exists()
    assert not caplog.records


def test_importing_builds_nothing(tmp_path):
    code = "import liquid_train.nn as nn; nn.CfC(3, 4)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not (tmp_path / "cache").exists()


def test_processes_that_build_at_once_build_once(tmp_path):
    compiler = fake_compiler(tmp_path, 'sleep 0.5; echo whole > "$out"')
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOADER, build.__file__],
            env={**os.environ, "CXX": str(compiler)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    paths = {process.communicate()[0].strip() for process in processes}
    (path,) = paths
    assert Path(path).read_text() == "whole\n"
    assert (tmp_path / "builds").read_text() == "built\n"


def test_sources_are_compiled_at_the_same_time(monkeypatch, tmp_path):
    begun = tmp_path / "begun"
    wait = f'echo >> {begun}; until [ $(wc -l < {begun}) -ge 2 ]; do sleep 0.01; done; echo whole > "$out"'
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, wait)))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert build.built_library().exists()
    assert begun.read_text().count("\n") == len(list(build.SOURCES.glob("*.cpp"))) + 1


def test_other_sources_another_compiler_or_cpu_are_another_build(monkeypatch, tmp_path):
    compiler = fake_compiler(tmp_path, 'echo whole > "$out"')
    monkeypatch.setenv("CXX", str(compiler))
    paths = [build.built_library(), build.built_library()]
    assert paths[0] == paths[1]
    monkeypatch.setattr(build, "_cpu", lambda: "another")
    paths.append(build.built_library())
    sources = tmp_path / "sources"
    shutil.copytree(build.SOURCES, sources)
    (sources / "vector.h").write_text("// changed\n")
    monkeypatch.setattr(build, "SOURCES", sources)
    paths.append(build.built_library())
    assert len(set(paths)) == 3
    assert (tmp_path / "builds").read_text() == "built\n" * 3


def test_a_cache_that_others_may_write_is_refused(monkeypatch, tmp_path, caplog):
    binary("c++")
    folder = tmp_path / "cache" / "liquid-train"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert library.native() is None
    assert "can be written by others" in caplog.text


def in_a_process(code):
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True, timeout=120)


@pytest.mark.parametrize("kernels", ["0", "1"])
def test_the_first_call_draws_no_numbers_and_imports_no_compiler(kernels, monkeypatch):
    """That import takes a second."""
    binary("c++")
    monkeypatch.delenv("LIQUID_TRAIN_CACHE")
    monkeypatch.setenv("LIQUID_TRAIN_NATIVE", kernels)
    in_a_process("""
    import sys, torch
    from liquid_train.nn import LTC, CfC
    layers, x = [CfC(3, 6), LTC(3, 6)], torch.randn(2, 4, 3)
    stream = torch.random.get_rng_state()
    for layer in layers:
        layer(x)[0].sum().backward()
    assert torch.equal(stream, torch.random.get_rng_state())
    assert "torch._dynamo" not in sys.modules
    """)


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has other threads there")
def test_the_threads_are_those_of_pytorch(monkeypatch):
    binary("c++")
    monkeypatch.delenv("LIQUID_TRAIN_CACHE")
    in_a_process("""
    import os, torch
    from liquid_train.nn import LTC, CfC
    torch.set_num_threads(2)
    torch.ones(10**6)
    before = os.listdir("/proc/self/task")
    for kind in (CfC, LTC):
        kind(3, 8)(torch.randn(64, 5, 3))[0].sum().backward()
    assert os.listdir("/proc/self/task") == before
    """)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads under /proc")
def test_a_forked_child_has_threads_of_its_own(monkeypatch):
    binary("c++")
    monkeypatch.delenv("LIQUID_TRAIN_CACHE")
    in_a_process("""
    import os, torch
    from liquid_train.nn import CfC
    torch.set_num_threads(2)
    layer, x = CfC(3, 8), torch.randn(64, 5, 3)
    with torch.no_grad():
        before = layer(x)[0]
        child = os.fork()
        if child == 0:
            assert len(os.listdir("/proc/self/task")) == 1
            same = torch.equal(layer(x)[0], before)
            os._exit(0 if same and len(os.listdir("/proc/self/task")) == 2 else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert torch.equal(layer(x)[0], before)
    """)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names targets of x86-64")
@pytest.mark.parametrize("target", ["-march=haswell", "-march=x86-64"])
def test_narrower_vectors_give_the_same_numbers(target, monkeypatch, assert_equal_paths):
    binary("c++")
    monkeypatch.setattr(build, "_TARGETS", ((target,),))
    assert library.native() is not None
    for units in (5, 37):
        for layer in (CfC(3, units), CfC(3, units, mode="pure"), LTC(3, units)):
            x, spans = torch.randn(19, 6, 3), torch.rand(19, 6)
            assert_equal_paths(layer, {"x": x, "hx": torch.randn(19, units), "spans": spans})
            stream, state = layer.stream(3), torch.zeros(3, units)
            layer.fast = False
            for t in range(6):
                with torch.no_grad():
                    output, state = layer(x[:3, t : t + 1], state, spans[:3, t : t + 1])
                torch.testing.assert_close(
                    stream.step(x[:3, t], spans[:3, t]), output[:, 0], rtol=1e-5, atol=5e-6
                )
