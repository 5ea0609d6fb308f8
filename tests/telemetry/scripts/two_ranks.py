"""Train configs on two forked ranks with telemetry off and on; say what the ranks have moved and asked for.

Run as ``two_ranks.py FOLDER CONFIG …``, in an empty directory; each rank of each run writes ``FOLDER/NAME.RANK.pt``.
"""

import os
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import torch  # noqa: E402

import liquid_telemetry  # noqa: E402
from liquid_train.__main__ import main  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2]))

from witness import Witness  # noqa: E402

PACKAGE = str(Path(liquid_telemetry.__file__).parent)
WAITING = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "__index__")
asked = set()


def told(name, read):
    def call(*args, **kwargs):
        frame = sys._getframe(1)
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        if frame is not None:
            asked.add((name, frame.f_code.co_name))
        return read(*args, **kwargs)

    return call


class RankWitness(Witness):
    """Writes what the rank has moved, and by which of our functions a tensor was read."""

    def on_fit_end(self, trainer, pl_module):
        super().on_fit_end(trainer, pl_module)
        path = f"{os.environ['TESTIMONY']}.{trainer.global_rank}.pt"
        torch.save({**Witness.last, "asked": sorted(asked)}, path)


def train(config, observed):
    options = {
        "max_epochs": 2,
        "limit_train_batches": 3,
        "limit_val_batches": 2,
        "accumulate_grad_batches": 2,
        "strategy": "ddp_fork",
        "devices": 2,
        "enable_progress_bar": "false",
        "enable_model_summary": "false",
    }
    return main(
        [
            "fit",
            f"--config={config}",
            f"--telemetry.enabled={str(observed).lower()}",
            *(["--telemetry.gradient_norm=true", "--telemetry.port=0"] if observed else []),
            "--test_after_fit=false",
            "--checkpoint.dirpath=kept",
            "--trainer.callbacks+=__main__.RankWitness",
            *(f"--trainer.{name}={value}" for name, value in options.items()),
        ]
    )


if __name__ == "__main__":
    for name in WAITING:
        setattr(torch.Tensor, name, told(name, getattr(torch.Tensor, name)))
    folder, *configs = sys.argv[1:]
    for config in configs:
        for observed in (False, True):
            os.environ["TESTIMONY"] = f"{folder}/{Path(config).stem}.{'on' if observed else 'off'}"
            code = train(config, observed)
            if code:
                sys.exit(code)
