from pathlib import Path

import pytest
import yaml

from liquid_train.__main__ import main

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
NAMES = ["basic_motions_cfc", "irregular_xor_cfc", "japanese_vowels_cfc", "japanese_vowels_ltc"]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=[c.stem for c in CONFIGS])


def test_the_configs_of_the_contract_ship() -> None:
    assert [c.stem for c in CONFIGS] == NAMES


@each_config
def test_every_line_says_what_it_means(config: Path) -> None:
    lines = [line for line in config.read_text().splitlines() if line.strip()]
    assert [line for line in lines if "#" not in line] == []
    assert max(map(len, lines)) <= 120


@each_config
def test_the_command_line_takes_every_key_as_written(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config), "--print_config"]) == 0
    parsed = yaml.safe_load(capsys.readouterr().out)

    def contained(written: object, understood: object) -> bool:
        if not isinstance(written, dict):
            return written == understood
        assert isinstance(understood, dict)
        return all(contained(value, understood[key]) for key, value in written.items())

    assert contained(yaml.safe_load(config.read_text()), parsed)


@each_config
def test_it_trains_tests_and_says_where_to_look(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    limits = ("max_epochs=1", "limit_train_batches=2", "limit_val_batches=1", "limit_test_batches=2")
    quiet = ("enable_progress_bar=false", "enable_model_summary=false")
    options = [f"--trainer.{option}" for option in (*limits, *quiet)]
    assert main(["fit", "--config", str(config), "--telemetry.enabled=false", *options]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {"best checkpoint", "test acc", "test loss", "run directory"} <= {name.strip() for name in lines}
    (run,) = (tmp_path / "runs").iterdir()
    assert sorted(p.name for p in run.iterdir()) == ["checkpoints", "config.yaml"]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


def test_a_trial_of_two_batches_says_that_it_keeps_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (config,) = (path for path in CONFIGS if path.stem == "japanese_vowels_cfc")
    assert main(["fit", f"--config={config}", "--trainer.fast_dev_run=2", "--telemetry.enabled=false"]) == 0
    assert "best checkpoint  none: fast_dev_run keeps none\n" in capsys.readouterr().out
