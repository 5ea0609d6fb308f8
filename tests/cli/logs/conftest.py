from pathlib import Path

import pytest
from loglines import epochs


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Runs of one model, an epoch of the third slow, the fifth slow, the sixth worse, the seventh killed."""
    runs = [("r1", 10.0, 1.0), ("r2", 10.2, 1.02), ("r3", 9.8, 0.98), ("r4", 10.0, 1.0), ("r5", 15.0, 1.0)]
    for day, (run, seconds, loss) in enumerate(runs, 1):
        (tmp_path / run).mkdir()
        (tmp_path / run / "events.jsonl").write_bytes(epochs(run, seconds, loss, day))
    for run, day, loss, count, end in (("r6", 6, 1.5, 3, "completed"), ("r7", 7, 1.0, 2, "failed")):
        (tmp_path / run).mkdir()
        (tmp_path / run / "events.jsonl").write_bytes(epochs(run, 10.0, loss, day, count, end))
    return tmp_path
