"""`liquid-train bench`, on a clock that the model moves: every number is exact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import trained
from tiny import runs, samples, workplace

from liquid_train.__main__ import main
from liquid_train.bench import benchmark, measure, plot
from liquid_train.tasks.network import SequenceNetwork

pytestmark = [pytest.mark.filterwarnings(noise) for noise in tiny.LIGHTNING_NOISE]

STEP_NS = 100_000
"""What a step of one series takes; a block has then ten calls or fewer."""


class Machine:
    """A clock, a model and a machine that may each be slower."""

    def __init__(self):
        self.ns = 0
        self.model = self.speed = 1.0
        self.calls = 0

    def forward(self, network, batch):
        self.calls += 1
        jitter = 1 + (self.calls % 5 - 2) / 100
        series, length = batch.inputs.shape[:2]
        self.ns += int(STEP_NS * series * length * self.model * self.speed * jitter)
        return network.linear(batch.inputs.new_zeros(series, network.linear.in_features))

    def reference(self):
        self.ns += int(1_000_000 * self.speed)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    with workplace(tmp_path_factory.mktemp("trained")):
        return trained.train()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    made = Machine()
    monkeypatch.setattr(measure, "clock", lambda: made.ns)
    monkeypatch.setattr(SequenceNetwork, "forward", lambda self, batch: made.forward(self, batch))
    monkeypatch.setattr(benchmark, "reference", made.reference)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with workplace(tmp_path):
        yield made


@pytest.fixture
def bench(checkpoint, machine, capsys):
    """Run the command on two cases; return its exit code and what it says as JSON."""

    def run(*options):
        command = [
            "bench",
            "--ckpt",
            str(checkpoint),
            "--batch",
            "1",
            "2",
            "--length",
            "50",
            "--blocks",
            "10",
        ]
        code = main([*command, "--json", *options])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else said.err

    return run


def median_seconds(series):
    return series * 50 * STEP_NS / 1e9


def test_a_slower_model_is_a_regression(bench, machine):
    code, first = bench()
    assert (code, first["verdict"], first["baseline_updated"]) == (0, "new", True)
    for case, series in zip(first["cases"], (1, 2), strict=True):
        assert case["median_seconds"] == pytest.approx(median_seconds(series))
    assert Path(first["baseline"]).parent == Path("state/liquid-train/bench").absolute()
    code, again = bench()
    assert (code, again["verdict"], again["baseline_updated"]) == (0, "no regression", False)
    assert [case["verdict"] for case in again["cases"]] == ["same", "same"]

    machine.model = 1.25
    code, slow = bench()
    assert (code, slow["verdict"]) == (2, "slower")
    for case in slow["cases"]:
        assert case["verdict"] == "slower"
        assert case["ratio"]["ratio"] == pytest.approx(1.25, rel=0.01)
        assert 1.1 < case["ratio"]["low"] <= 1.25 <= case["ratio"]["high"] < 1.4
    code, allowed = bench("--allowed", "1.5")
    assert (code, allowed["verdict"]) == (0, "no regression")


def test_a_regression_is_told_to_prometheus_and_the_log(bench, machine):
    bench()
    machine.model = 1.25
    _, said = bench()
    quiet, told = runs()
    assert not (quiet.dir / "events.jsonl").exists()
    assert quiet.metrics["performance_regression"] == {(): 0}
    assert told.metrics["performance_regression"] == {(): 1}
    assert [event["case"] for event in told.events] == ["1x50", "2x50"]
    for event, case in zip(told.events, said["cases"], strict=True):
        assert event["event"] == "performance_regression_detected"
        assert event["level"] == "warning"
        assert event["duration"] == case["median_seconds"]
        assert event["threshold"] == 1.1 * case["baseline_seconds"]
        assert {name: event[name] for name in ("ratio", "low", "high")} == case["ratio"]
        assert event["baseline"] == said["baseline"]
    calls = sum(case["calls"] for case in said["cases"])
    assert told.metrics["benchmark_duration_seconds_count"] == {(): calls}
    assert told.metrics["benchmark_duration_seconds_bucket"][("le", "0.01"),] > 0
    assert (told.record["stage"], told.record["job"], told.record["status"]) == ("bench", False, "completed")


def test_a_slower_machine_is_no_regression(bench, machine):
    bench()
    machine.speed = 1.25
    code, said = bench()
    assert (code, said["verdict"]) == (0, "no regression")
    assert [case["verdict"] for case in said["cases"]] == ["unclear", "unclear"]
    assert said["cases"][0]["relative_ratio"]["ratio"] == pytest.approx(1.0, rel=0.01)


def test_the_baseline_is_refreshed_when_asked(bench, machine):
    bench()
    machine.model = 1.25
    code, said = bench("--update-baseline")
    assert (code, said["verdict"], said["baseline_updated"]) == (0, "slower", True)
    code, said = bench()
    assert (code, said["verdict"]) == (0, "no regression")
    machine.model = 1.0
    assert [case["verdict"] for case in bench()[1]["cases"]] == ["faster", "faster"]


def test_history_and_plot(bench, machine, tmp_path):
    for model in (1.0, 1.0, 1.25):
        machine.model = model
        _, said = bench("--plot", "history.png")
    history = [json.loads(line) for line in Path(said["history"]).read_text().splitlines()]
    assert [line["cases"]["1x50"]["verdict"] for line in history] == ["new", "same", "slower"]
    assert Path("history.png").read_bytes().startswith(b"\x89PNG")
    Path(said["history"]).write_text("no line\n" + Path(said["history"]).read_text())
    bench("--plot", "again.svg")
    assert "batch x length" in Path("again.svg").read_text()


def test_a_named_baseline_has_to_be_there_and_to_fit(bench, machine):
    code, error = bench("--baseline", "mine.json")
    assert (code, error.splitlines()[-1]) == (
        1,
        "liquid-train: error: bench: baseline mine.json: No such file or directory; measure one with "
        "--update-baseline",
    )
    assert bench("--baseline", "mine.json", "--update-baseline")[0] == 0
    assert bench("--baseline", "mine.json")[0] == 0
    kept = json.loads(Path("mine.json").read_text())
    for change, said in (
        ({"machine_key": "other"}, "is of another machine or setting (cpu "),
        ({"model_key": "other"}, "is of another model, other; give that of LiquidClassifier-"),
        ({"blocks": {"7x7": [1.0], "reference": [1.0]}}, "has only the cases 7x7; choose these with --batch"),
        ({"blocks": {"1x50": [1.0]}}, "is damaged; measure a new one with --update-baseline"),
        ({"blocks": {"1x50": [0.0], "reference": [1.0]}}, "is damaged"),
        ({"format": 9}, "is damaged"),
    ):
        Path("mine.json").write_text(json.dumps(kept | change))
        code, error = bench("--baseline", "mine.json")
        assert code == 1
        assert said in error
    Path("mine.json").write_text("{")
    assert "is damaged" in bench("--baseline", "mine.json")[1]
    assert bench("--baseline", "mine.json", "--update-baseline")[0] == 0


def test_threads_have_baselines_of_their_own(bench):
    assert bench()[1]["baseline"] != bench("--threads", "2")[1]["baseline"]


def test_nothing_that_names_the_machine_is_kept(bench):
    import platform

    _, said = bench()
    assert {"cpu", "cores", "threads", "vector", "system", "python", "torch", "load"} == said[
        "machine"
    ].keys()
    kept = Path(said["baseline"]).read_text() + Path(said["history"]).read_text()
    assert platform.node() not in kept


def test_a_busy_machine_is_told(checkpoint, machine, capsys, monkeypatch):
    command = ["bench", "--ckpt", str(checkpoint), "--batch", "1", "--length", "50", "--blocks", "10"]
    monkeypatch.setattr(benchmark.os, "cpu_count", lambda: 2)
    for load, said in (
        (5.25, "the machine was busy (load 5.2 on 2 cores)"),
        (1.0, "the machine was busy at the base"),
    ):
        monkeypatch.setattr(benchmark.os, "getloadavg", lambda load=load: (load, 0, 0))
        assert main(command) == 0
        assert capsys.readouterr().out.count(said) == 1


def test_the_table_for_people(checkpoint, machine, capsys):
    command = ["bench", "--ckpt", str(checkpoint), "--batch", "1", "--length", "50", "--blocks", "10"]
    assert main(command) == 0
    assert "this is the baseline now: " in capsys.readouterr().out
    machine.model, machine.speed = 2.0, 1.2
    assert main(command) == 2
    said = capsys.readouterr().out
    assert "1x50  12.000 ms" in said
    assert "2.400 (" in said
    assert "slower than 1.1 times the baseline: 1x50" in said
    assert "the machine itself took 1.20 times as long for the reference work" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "the following arguments are required: --ckpt"),
        (["--ckpt", "none"], "bench: --ckpt=none: there is no such file"),
        (["--ckpt", "none", "--batch", "0"], "argument --batch: '0' must be a whole number of at least 1"),
        (["--ckpt", "none", "--blocks", "4"], "argument --blocks: '4' must be a whole number of at least 5"),
        (["--ckpt", "none", "--allowed", "1"], "argument --allowed: '1' must be a number above 1"),
        (["--ckpt", "none", "--allowed", "x"], "argument --allowed: 'x' must be a number above 1"),
        (["--ckpt", "none", "--confidence", "1"], "argument --confidence: '1' must be a share"),
        (["--ckpt", "none", "--plot", "x.txt"], "bench: --plot x.txt: must end in one of"),
    ],
)
def test_one_line_for_what_a_user_can_mend(options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_missing_matplotlib_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--ckpt", "none", "--plot", "x.png"]) == 1
    assert "--plot needs matplotlib; pip install 'liquid-train[notebooks]'" in capsys.readouterr().err


def test_real_time_passes(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with workplace(tmp_path):
        assert (
            main(
                [
                    "bench",
                    "--ckpt",
                    str(checkpoint),
                    "--batch",
                    "1",
                    "--length",
                    "4",
                    "--blocks",
                    "5",
                    "--json",
                ]
            )
            == 0
        )
        (case,) = json.loads(capsys.readouterr().out)["cases"]
        assert 0 < case["p05_seconds"] <= case["median_seconds"] <= case["p95_seconds"]
        (run,) = runs()
        count = samples((run.spool / "runs" / run.run_id / "0.prom").read_text())[
            "benchmark_duration_seconds_count"
        ]
        assert count == {(): case["calls"]}
