"""Which batches get a span, and in which trace."""

import math
import warnings
from itertools import pairwise

import numpy as np
import torch
from tiny import Tiny, only_run, trainer

from liquid_telemetry import OpenTelemetrySpans, Telemetry
from liquid_telemetry.observe.records import BatchBlock
from liquid_telemetry.testing import TickingClock
from liquid_telemetry.tracing.budget import Budget, SlowBatches
from liquid_telemetry.tracing.epoch import Epoch

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def attribute(span, name):
    return span["attributes"].get(f"liquid_train.{name}")


class Many(Tiny):
    """So many batches that most of the time is telemetry's."""

    def __init__(self, batches, special=None):
        super().__init__()
        self.batches, self.special = batches, special or {}

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.zeros(self.batches, 1, 4), batch_size=None)

    def training_step(self, batch, batch_idx):
        return self.special.get(batch_idx, lambda loss: loss)(self.linear(batch).mean())


def fit_many(callback, model, epochs=1):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*training_step. returned .None.*")
        warnings.filterwarnings("ignore", ".*have no .val_dataloader.*")
        trainer(callback, max_epochs=epochs, limit_val_batches=0).fit(model)


class TestBudget:
    def test_epochs_beyond_the_budget_get_traces_of_their_own(self):
        fit_many(OpenTelemetrySpans(), Many(batches=700), epochs=4)
        run = only_run()
        root = run.spans_named("fit started")[0]
        epochs = run.spans_named("train epoch")
        assert [epoch["traceId"] == root["traceId"] for epoch in epochs] == [True, True, False, False]
        assert len({epoch["traceId"] for epoch in epochs}) == 3
        for epoch in epochs[2:]:
            assert "parentSpanId" not in epoch
            assert [(link["traceId"], link["spanId"]) for link in epoch["links"]] == [
                (root["traceId"], root["spanId"])
            ]
        for epoch in epochs:
            assert [attribute(epoch, f"batches.{name}") for name in ("total", "recorded", "kept")] == [
                700,
                700,
                "all",
            ]
        (fit_span,) = run.spans_named("fit")
        assert fit_span["traceId"] == root["traceId"]

    def test_telling_batches_are_always_kept(self):
        clock = TickingClock(tick=1000)

        def be_slow(loss):
            clock.advance(1)
            return loss

        special = {1850: lambda loss: loss * 0 + math.nan, 1860: lambda loss: None, 1870: be_slow}
        fit_many(Telemetry(clock=clock), Many(batches=1900, special=special))
        run = only_run()
        (epoch,) = run.spans_named("train epoch")
        batches = run.spans_named("train batch")
        by_index = {attribute(batch, "batch.index"): batch for batch in batches}
        assert math.isnan(attribute(by_index[1850], "loss"))
        assert attribute(by_index[1860], "batch.skipped") is True
        assert attribute(epoch, "batches.total") == 1900
        assert attribute(epoch, "batches.recorded") == len(batches) == len(by_index)
        assert 1797 <= len(batches) <= 1800
        assert max(later - former for former, later in pairwise(by_index)) == 2
        assert (
            attribute(epoch, "batches.kept")
            == "spread evenly over the budget, and slow, skipped and non-finite ones"
        )
        check_nonfinite(run)

    def test_slow_is_far_from_the_usual(self):
        slow = SlowBatches()
        assert not slow.among(1.0 + 0.1 * np.sin(np.arange(200))).any()
        assert slow.among(np.array([5.0, 1.1])).tolist() == [True, False]

    def test_the_first_batches_are_slow_without_being_told(self):
        slow = SlowBatches()
        assert not any(slow.among(np.array([seconds])).any() for seconds in (30.0, 5.0, *[1.0] * 10))
        assert slow.among(np.array([*[1.0] * 60, 20.0])).tolist() == [False] * 60 + [True]

    def test_an_epoch_of_unknown_length_is_thinned_as_it_goes_on(self):
        kept = choose_from(Epoch(None, Budget(1000), None), blocks=64)
        assert kept[:5] == [100] * 5
        assert all(later <= former + 1 for former, later in pairwise(kept))
        assert kept[-1] > 0
        assert sum(kept) <= 900

    def test_an_epoch_longer_than_the_budget_is_spread_evenly_to_its_end(self):
        kept = choose_from(Epoch(None, Budget(1000), 5000), blocks=50)
        assert 890 <= sum(kept) <= 900
        assert max(kept) - min(kept) <= 1


def choose_from(epoch, blocks):
    """How many of each block of a hundred ordinary batches get a span."""
    slow, numbers = SlowBatches(), np.arange(100)
    columns = (numbers, numbers, numbers + 1000, numbers, numbers)
    phases = np.zeros((100, 8), np.int64)
    block = BatchBlock("train", 0, *columns, [0.5] * 100, [False] * 100, phases)
    return [len(epoch.choose(block, slow)) for _ in range(blocks)]


def check_nonfinite(run):
    assert run.metrics["training_nonfinite_losses_total"] == {(): 1}
    (event,) = run.events_named("training_nonfinite_loss")
    assert [event[name] for name in ("epoch", "batch", "value", "count")] == [0, 1850, "nan", 1]
    (end,) = run.events_named("training_epoch_completed")
    assert end["loss"] is None
