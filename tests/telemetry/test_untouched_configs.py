"""Every configuration that ships trains to the same bits with telemetry as without it."""

from pathlib import Path

import pytest
import torch
from tiny import lines
from witness import Witness, differences

from liquid_train.__main__ import main

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
QUIET = ("enable_progress_bar=false", "enable_model_summary=false", "limit_val_batches=2")
SHORT = {
    "plain": ("max_epochs=2", "limit_train_batches=5"),
    "accumulation": (
        "max_epochs=2",
        "limit_train_batches=5",
        "accumulate_grad_batches=2",
        "val_check_interval=2",
    ),
}


def train(config, *options, observed, callbacks=()):
    """What a fit has moved."""
    telemetry = ["--telemetry.gradient_norm=true", "--telemetry.port=0"] if observed else []
    code = main(
        [
            "fit",
            f"--config={config}",
            f"--telemetry.enabled={str(observed).lower()}",
            *telemetry,
            "--test_after_fit=false",
            "--trainer.callbacks+=witness.Witness",
            *callbacks,
            *(f"--trainer.{option}" for option in QUIET),
            *options,
        ]
    )
    assert code == 0
    return Witness.last


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", SHORT)
@pytest.mark.parametrize("config", CONFIGS, ids=[config.stem for config in CONFIGS])
def test_a_config_trains_to_the_same_bits(config, case):
    options = [f"--trainer.{option}" for option in SHORT[case]] + ["--checkpoint.dirpath=last"]
    bare = train(config, *options, observed=False)
    bare_checkpoint = torch.load("last/last.ckpt", weights_only=False)
    assert not list(Path().glob("**/telemetry.json"))
    observed = train(config, *options, observed=True)
    assert differences(bare, observed) == []
    checkpoint = torch.load("last/last.ckpt", weights_only=False)
    assert checkpoint.pop("liquid_telemetry").keys() == {"run_id", "trace_id"}
    assert differences(bare_checkpoint, checkpoint) == []
    (manifest,) = Path().glob("runs/*/telemetry.json")
    (ended,) = (
        event for event in lines(manifest.parent / "events.jsonl") if event["event"] == "training_completed"
    )
    assert ended["batches"] == len(bare["losses"])


@pytest.mark.parametrize("step", [3, 5], ids=["within-an-epoch", "between-epochs"])
@pytest.mark.parametrize("config", CONFIGS, ids=[config.stem for config in CONFIGS])
def test_a_config_resumes_to_the_same_bits(config, step):
    options = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=5"]
    every = [
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.dirpath=kept",
        "--trainer.callbacks.filename={step}",
        "--trainer.callbacks.every_n_train_steps=1",
        "--trainer.callbacks.save_top_k=-1",
    ]
    whole = train(config, *options, observed=True, callbacks=every)
    kept = f"--ckpt_path=kept/step={step}.ckpt"
    bare = train(config, *options, kept, observed=False)
    observed = train(config, *options, kept, observed=True)
    assert differences(bare, observed) == []
    assert len(bare["losses"]) == len(whole["losses"]) - step


def test_a_difference_of_one_bit_is_found():
    one = {"weights": {"w": torch.tensor([1.0, float("nan")])}, "python": (3, (1, 2), None)}
    other = {"weights": {"w": torch.tensor([1.0 + 2**-23, float("nan")])}, "python": (3, (1, 2), None)}
    assert differences(one, one) == []
    assert differences(one, other) == ["/weights/w"]
    assert differences(one, {**one, "python": (3, (1, 2), 0.5)}) == ["/python/2"]
    assert differences(one, {"weights": one["weights"]}) == ["/python"]
