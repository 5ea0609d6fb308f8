"""The command from start to end: what it says, how it is told, how it stops under load."""

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import torch
from serving import command
from tiny import LIGHTNING_NOISE, lines, samples, workplace
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from liquid_telemetry.spool import wait_exporter
from liquid_train.__main__ import main
from liquid_train.cli import serve
from liquid_train.serve.model import Model, series_of
from liquid_train.tasks.load import load_task

pytestmark = [pytest.mark.filterwarnings(noise) for noise in LIGHTNING_NOISE]


def served_run(folder):
    (path,) = (path.parent for path in Path(folder).glob("runs/*/events.jsonl"))
    return path


def exporter_text(folder):
    address = wait_exporter(folder / "spool", 60)  # a server may be over before its exporter serves
    with urllib.request.urlopen(f"{address.url}/metrics", timeout=10) as response:
        return response.read().decode()


def test_sigterm_under_load_answers_everything_that_was_accepted(classifier, tmp_path):
    """A second process asks as fast as it can; every answer is checked by it, and none may be missing."""
    values = [[[0.1 * n] for n in range(length)] for length in range(1, 9)]
    model = Model.load(str(classifier))
    expected = model.predict([series_of(one, None) for one in values], 8)
    (tmp_path / "plan.json").write_text(json.dumps([values, expected]))
    with command("--ckpt", classifier) as served:
        port = int(served.url.rpartition(":")[2])
        load = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("load.py"), served.url, tmp_path / "plan.json", "8"],
            stdout=subprocess.PIPE,
            text=True,
        )
        said = load.stdout.readline()
        assert said == "100 answers\n"
        with connect(served.url.replace("http", "ws") + "/stream") as stream:
            stream.send('{"values": [1]}')
            assert '"step":0' in stream.recv(timeout=20)
            served.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                stream.recv(timeout=20)
        assert closed.value.rcvd.code == 1012
        assert served.process.wait(60) == 143
        report = json.loads(load.communicate(timeout=60)[0].splitlines()[-1])
    assert report["wrong"] == report["lost"] == 0, report
    assert report["right"] >= 100
    assert set(report["ends"]) <= {"refused", "closed before the request was read"}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    run = served_run(tmp_path)
    events = [(event["event"], event["level"]) for event in lines(run / "events.jsonl")]
    assert events == [
        ("model_deployment_started", "info"),
        ("model_deployment_completed", "info"),
        ("serving_ended", "info"),
    ]
    started, completed, ended = lines(run / "events.jsonl")
    assert started["model_version"] == completed["model_version"] == load_task(classifier, "ckpt").version
    assert (ended["reason"], started["target_platform"]) == ("terminated", "serve")
    text = exporter_text(tmp_path)
    answered = (
        f'liquid_nn_api_calls_total{{endpoint="/predict",method="POST",status="200"}} {report["right"]}.0'
    )
    assert answered in text, "the exporter shows the server's calls, also when it has gone"
    assert (
        f'liquid_nn_inference_requests_total{{device="cpu",model_type="LiquidClassifier"}} {report["right"] + 1}.0'
        in text
    )
    assert 'liquid_nn_model_deployments_total{status="completed",target_platform="serve"} 1.0' in text
    manifest = json.loads((run / "telemetry.json").read_text())
    assert manifest["events"] == str(run / "events.jsonl")


@pytest.mark.slow
def test_ctrl_c_ends_it_and_open_streams_are_told(classifier, tmp_path):
    with command("--ckpt", classifier, "--no-exporter", code=130) as served:
        with connect(served.url.replace("http", "ws") + "/stream") as stream:
            stream.send('{"values": [1]}')
            assert '"step":0' in stream.recv(timeout=20)
            served.process.send_signal(signal.SIGINT)
            with pytest.raises(ConnectionClosed) as closed:
                stream.recv(timeout=20)
        assert closed.value.rcvd.code == 1012
        served.process.wait(60)
    assert lines(served_run(tmp_path) / "events.jsonl")[-1]["reason"] == "user"
    assert not (tmp_path / "spool").exists()


def test_a_damaged_checkpoint_is_a_failed_deployment(tmp_path, classifier, capsys):
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(classifier.read_bytes()[:-2000])
    with workplace(tmp_path):
        assert main(["serve", "--ckpt", str(cut), "--port=0"]) == 1
    (told,) = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("liquid-train: error: ")
    ]
    assert f"serve: --ckpt={cut}: is not a whole checkpoint" in told
    run = served_run(tmp_path)
    assert [event["event"] for event in lines(run / "events.jsonl")] == [
        "model_deployment_started",
        "model_deployment_failed",
    ]
    (snapshot,) = (tmp_path / "spool" / "runs").glob("*/0.prom")
    found = samples(snapshot.read_text())["model_deployments_total"]
    assert found[("status", "failed"), ("target_platform", "serve")] == 1
    assert found[("status", "completed"), ("target_platform", "serve")] == 0


def test_a_model_that_cannot_answer_is_a_failed_deployment(tmp_path, classifier, monkeypatch):
    def broken(self, series, most):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(Model, "predict", broken)
    with workplace(tmp_path), pytest.raises(RuntimeError, match="no kernel"):
        main(["serve", "--ckpt", str(classifier), "--port=0"])
    failed = lines(served_run(tmp_path) / "events.jsonl")[-1]
    assert (failed["event"], failed["error_message"]) == ("model_deployment_failed", "no kernel")


def test_bad_input_is_one_line(classifier, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").write_text(" \n")
    monkeypatch.setenv("EMPTY", "")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, message in (
            ([], "serve: the following arguments are required: --ckpt"),
            (["--ckpt", "nowhere"], "serve: --ckpt=nowhere: there is no such file"),
            (["--ckpt", str(classifier), "--port", str(port)], f"serve: cannot serve at 127.0.0.1:{port}: "),
            (["--ckpt", "x", "--max-batch", "0"], "'0' must be a whole number of at least 1"),
            (["--ckpt", "x", "--idle", "nan"], "'nan' must be a number above 0"),
            (["--ckpt", "x", "--environment", "a b"], "'a b' must be 1 to 63 letters"),
            (["--ckpt", "x", "--token-file", "nowhere"], "--token-file=nowhere: No such file or directory"),
            (["--ckpt", "x", "--token-file", "empty"], "--token-file=empty: must hold a token"),
            (["--ckpt", "x", "--token-env", "EMPTY"], "--token-env=EMPTY: must hold a token"),
            (["--ckpt", "x", "--token-env", "A", "--token-file", "b"], "set one of them"),
        ):
            assert main(["serve", *arguments]) == 1
            said = capsys.readouterr().err
            assert message in said
            assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_missing_package_is_named_with_its_pip_line(monkeypatch, capsys):
    there = importlib.util.find_spec
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else there(name))
    assert main(["serve", "--ckpt", "x"]) == 1
    assert "serve: needs uvicorn: pip install 'liquid-train[serve]'" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_not_served(classifier, tmp_path, capsys):
    checkpoint = torch.load(classifier, weights_only=True)
    checkpoint["state_dict"]["network.linear.bias"].fill_(float("nan"))
    torch.save(checkpoint, tmp_path / "nan.ckpt")
    assert main(["serve", "--ckpt", "nan.ckpt", "--no-exporter"]) == 1
    assert "network.linear.bias is not finite" in capsys.readouterr().err
