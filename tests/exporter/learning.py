"""A real fit of 2,000 epochs that is slow enough to be watched, under the name that its argument gives."""

import sys
import time
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny import Tiny, fit  # noqa: E402

from liquid_telemetry import Telemetry  # noqa: E402


class Slow(Tiny):
    def training_step(self, batch, batch_idx):
        time.sleep(0.02)
        return super().training_step(batch, batch_idx)


if __name__ == "__main__":
    fit(Telemetry(port=0, model_name=sys.argv[1]), model=Slow(), max_epochs=2000)
