"""`liquid-train export`: from a checkpoint of a real run to files that give its numbers without this package."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import tiny
import torch
import trained
from tiny import lines, run_python, runs, trainer, workplace

from liquid_train import LiquidClassifier
from liquid_train.__main__ import main
from liquid_train.export import artefact
from liquid_train.export.targets import TARGETS, Target

pytestmark = [pytest.mark.filterwarnings(noise) for noise in tiny.LIGHTNING_NOISE]

REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("liquid_train", "liquid_telemetry", "lightning", "ncps"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
"""
COMPARE = """
import json
given = torch.load("given.pt")
ragged, _ = sequence(given["inputs"], given["timespans"], given["lengths"])
full = torch.full_like(given["lengths"], given["inputs"].shape[1])
answer, hidden = sequence(given["inputs"], given["timespans"], full)
state = [torch.zeros_like(hidden)]
for now in range(given["inputs"].shape[1]):
    latest, *state = step(given["inputs"][:, now], given["timespans"][:, now], *state)
print(json.dumps([one.tolist() for one in (ragged, answer, latest, hidden, *state)]))
"""
PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def shown(version):
    """The Python of the documentation, on an artefact that is there."""
    blocks = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [block.replace("MODEL_VERSION", version) for block in blocks]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    with workplace(tmp_path_factory.mktemp("trained")):
        return trained.train()


@pytest.fixture
def place(tmp_path):
    with workplace(tmp_path):
        yield tmp_path


def predicted(checkpoint):
    """Batches of test data and what the trainer predicts for them."""
    module = trained.data()
    model = LiquidClassifier.load_from_checkpoint(checkpoint)
    answers = trainer().predict(model, datamodule=module)
    return list(zip(module.predict_dataloader(), answers, strict=True))


def test_torch_export_gives_the_trainers_numbers_without_this_package(checkpoint, place, capsys):
    command = ["export", "--ckpt", str(checkpoint), "--target", "torch-export"]
    assert main(command) == 0
    run_id = checkpoint.parent.parent.name
    folder = Path("exports") / f"{run_id}-best-torch-export"
    assert [path.name for path in Path("exports").iterdir()] == [folder.name]
    said = capsys.readouterr()
    assert said.out.startswith(f"{folder}\n")
    assert "numbers compared with the checkpoint" in said.out

    batch, answer = predicted(checkpoint)[0]
    torch.save({"inputs": batch.inputs, "timespans": batch.timespans, "lengths": batch.lengths}, "given.pt")
    said = map(torch.tensor, json.loads(run_python(REFUSE + shown(f"{run_id}-best")[0] + COMPARE).stdout))
    ragged, whole, latest, hidden, state = said
    assert len(set(batch.lengths.tolist())) > 1
    assert torch.allclose(ragged, answer, atol=1e-6)
    assert torch.allclose(whole, latest, atol=1e-6)
    assert torch.allclose(hidden, state, atol=1e-6)

    assert main(command) == 1
    assert f"--out {folder}: exists; choose another, or replace it with --replace" in capsys.readouterr().err


def test_onnx_gives_the_trainers_numbers(checkpoint, place):
    import onnxruntime

    assert main(["export", "--ckpt", str(checkpoint), "--target", "onnx", "--out", "model"]) == 0
    session = onnxruntime.InferenceSession("model/sequence.onnx")
    for batch, answer in predicted(checkpoint):
        given = {name: getattr(batch, name).numpy() for name in ("inputs", "timespans", "lengths")}
        found, _ = session.run(["prediction", "new_hidden"], given)
        assert torch.allclose(torch.from_numpy(found), answer, atol=1e-5)
    manifest = json.loads(Path("model/manifest.json").read_text())
    Path("exports").mkdir()
    Path("model").rename("exports/shown-onnx")
    program = {}
    exec(shown("shown")[1], program)
    assert program["prediction"].shape == (1, 2)
    assert {"torch", "onnx", "onnxruntime", "onnxscript", "liquid-train"} == manifest["versions"].keys()


def quick(checkpoint, monkeypatch, out="model", perturb=None):
    """Export with a target that writes state dicts, so that only what is around the target takes part."""

    def load(path: Path):
        program = kept[path.stem]

        def run(inputs):
            found = program(*inputs)
            return tuple(value + perturb for value in found) if perturb else found

        return run

    kept = {}

    def write(program, path):
        kept[path.stem] = program
        torch.save(program.state_dict(), path)

    monkeypatch.setitem(TARGETS, "torch-export", Target("torch-export", ".pt2", write, load, ("torch",)))
    return main(["export", "--ckpt", str(checkpoint), "--target", "torch-export", "--out", out, "--replace"])


def test_the_manifest_tells_what_was_written_and_where_it_comes_from(checkpoint, place, monkeypatch):
    assert quick(checkpoint, monkeypatch) == 0
    manifest = json.loads(Path("model/manifest.json").read_text())
    run_id = checkpoint.parent.parent.name
    assert manifest["model"] == "LiquidClassifier"
    assert manifest["trained_by"] == run_id
    assert manifest["model_version"] == f"{run_id}-best"
    assert manifest["checkpoint"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert manifest["target_platform"] == "torch-export"
    log = lines(checkpoint.parent.parent / "events.jsonl")
    (completed,) = (event for event in log if event["event"] == "training_epoch_completed")
    assert manifest["metrics"]["val_loss"] == completed["val_loss"]
    for name, file in manifest["files"].items():
        data = Path("model", file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest()), name
    assert manifest["files"]["sequence"]["inputs"] == [
        {"name": "inputs", "dtype": "float32", "shape": ["batch", "length", 1]},
        {"name": "timespans", "dtype": "float32", "shape": ["batch", "length"]},
        {"name": "lengths", "dtype": "int64", "shape": ["batch"]},
    ]
    assert [port["name"] for port in manifest["files"]["step"]["inputs"]] == ["inputs", "timespans", "hidden"]
    compared = manifest["comparison"]
    assert {case["timespans"] for case in compared["cases"]} == {"ones", "zeros", "irregular"}
    assert compared["max_difference"] == max(case["difference"] for case in compared["cases"])
    assert 0 <= compared["max_excess"] <= 1


def test_an_export_is_a_run_of_its_own_with_events_and_a_count(checkpoint, place, monkeypatch):
    assert quick(checkpoint, monkeypatch) == 0
    (run,) = runs()
    assert [event["event"] for event in run.events] == [
        "model_deployment_started",
        "model_deployment_completed",
    ]
    for event in run.events:
        assert event["deployment_id"] == event["run_id"] == run.run_id == run.manifest["run_id"]
        assert event["model_version"] == f"{checkpoint.parent.parent.name}-best"
        assert event["target_platform"] == "torch-export"
    assert run.events[1]["path"] == str(place / "model")
    assert deployments(run) == {"started": 1, "completed": 1, "failed": 0}
    assert (run.record["status"], run.record["job"], run.record["stage"]) == ("completed", False, "export")


def deployments(run):
    return {dict(labels)["status"]: value for labels, value in run.metrics["model_deployments_total"].items()}


def test_other_numbers_fail_and_leave_what_was_there(checkpoint, place, monkeypatch, capsys):
    assert quick(checkpoint, monkeypatch) == 0
    before = Path("model/manifest.json").read_text()
    assert quick(checkpoint, monkeypatch, perturb=1e-3) == 1
    assert "the numbers differ, so nothing was kept: sequence, batch 1, length 1" in capsys.readouterr().err
    assert Path("model/manifest.json").read_text() == before
    assert sorted(path.name for path in place.iterdir()) == ["model", "runs", "spool"]
    _, run = runs()
    assert run.events[-1]["event"] == "model_deployment_failed"
    assert run.events[-1]["error_type"] == "MismatchError"
    assert deployments(run) == {"started": 1, "completed": 0, "failed": 1}
    assert run.record["status"] == "failed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing(number, code, checkpoint, place, monkeypatch):
    monkeypatch.setattr(artefact, "compare", lambda *_: os.kill(os.getpid(), number))
    monkeypatch.setattr(artefact, "describe", lambda *_: pytest.fail("it went on"))
    assert quick(checkpoint, monkeypatch) == code
    assert sorted(path.name for path in place.iterdir()) == ["runs", "spool"]
    (run,) = runs()
    assert run.record["status"] == "interrupted"
    assert run.events[-1]["event"] == "model_deployment_failed"


def test_no_telemetry_where_it_is_switched_off(checkpoint, place, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_ENABLED", "0")
    assert quick(checkpoint, monkeypatch) == 0
    assert sorted(path.name for path in place.iterdir()) == ["model"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target", "onnx"], "the following arguments are required: --ckpt"),
        (["--ckpt", "none.ckpt", "--target", "onnx"], "--ckpt=none.ckpt: there is no such file"),
        (["--ckpt", "half.ckpt", "--target", "onnx"], "--ckpt=half.ckpt: is not a whole checkpoint"),
        (["--ckpt", "text.ckpt", "--target", "onnx"], "--ckpt=text.ckpt: is not a whole checkpoint"),
        (["--ckpt", "code.ckpt", "--target", "onnx"], "--ckpt=code.ckpt: holds objects besides tensors"),
        (
            ["--ckpt", "weights.ckpt", "--target", "onnx"],
            "--ckpt=weights.ckpt: is no checkpoint of Lightning's",
        ),
        (
            ["--ckpt", "other.ckpt", "--target", "onnx"],
            "--ckpt=other.ckpt: holds a mine.Model; must be one of",
        ),
        (["--ckpt", "shape.ckpt", "--target", "onnx"], "--ckpt=shape.ckpt: does not fit a LiquidClassifier"),
        (["--ckpt", ".", "--target", "onnx"], "--ckpt=.: Is a directory"),
        (["--ckpt", "good.ckpt", "--target", "tflite"], "argument --target: invalid choice: 'tflite'"),
        (
            ["--ckpt", "good.ckpt", "--target", "torch-export", "--out", "."],
            "--out .: exists and is no artefact",
        ),
        (["--ckpt", "good.ckpt", "--target", "torch-export", "--out", "text.ckpt/x"], "cannot be written"),
        (["--ckpt", "good.ckpt", "--target", "onnx", "--port", "x"], "'x' must be 0 (a free one) to 65535"),
    ],
)
def test_one_line_for_what_a_user_can_mend(options, said, checkpoint, place, capsys):
    data = checkpoint.read_bytes()
    Path("good.ckpt").write_bytes(data)
    Path("half.ckpt").write_bytes(data[: len(data) // 2])
    Path("text.ckpt").write_text("no checkpoint")
    torch.save({"f": Path("x")}, "code.ckpt")
    torch.save({"weight": torch.zeros(1)}, "weights.ckpt")
    whole = torch.load(checkpoint, weights_only=True)
    other = {**whole["hyper_parameters"], "_class_path": "mine.Model"}
    torch.save({**whole, "hyper_parameters": other}, "other.ckpt")
    torch.save({**whole, "hyper_parameters": {**whole["hyper_parameters"], "units": 5}}, "shape.ckpt")
    assert main(["export", *options]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.splitlines()[-1].startswith("liquid-train: error: export: ")


def test_a_missing_extra_is_named(checkpoint, place, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    from liquid_train.export import targets

    monkeypatch.setattr(targets, "find_spec", lambda name: None if name == "onnxruntime" else object())
    assert main(["export", "--ckpt", str(checkpoint), "--target", "onnx"]) == 1
    assert "--target onnx needs onnxruntime; pip install 'liquid-train[export]'" in capsys.readouterr().err


def test_exports_never_meet_half_way(checkpoint, place, monkeypatch):
    """What was in the folder is back when the last rename fails."""
    assert quick(checkpoint, monkeypatch) == 0
    before = Path("model/manifest.json").read_text()
    rename = Path.rename

    def fail(self, target):
        if Path(target).name == "model" and not self.name.endswith(".before"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    assert quick(checkpoint, monkeypatch) == 1
    assert Path("model/manifest.json").read_text() == before
    assert sorted(path.name for path in place.iterdir()) == ["model", "runs", "spool"]
