"""Tiny models, real Trainers, and readers of what a run wrote; shared by the tests of the telemetry."""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from liquid_telemetry import OpenTelemetrySpans, PrometheusMetrics, StructlogEvents, Telemetry
from liquid_telemetry.metrics import publish

SINGLES = (PrometheusMetrics, OpenTelemetrySpans, StructlogEvents)
COMBINATIONS = {
    "telemetry": (Telemetry,),
    "metrics": (PrometheusMetrics,),
    "spans": (OpenTelemetrySpans,),
    "events": (StructlogEvents,),
    "singles": SINGLES,
    "singles-reversed": tuple(reversed(SINGLES)),
    "telemetry-and-singles": (Telemetry, *SINGLES),
    "singles-and-telemetry": (*SINGLES, Telemetry),
}
LIGHTNING_NOISE = (
    "ignore:.*your dataloader is not resumable.*",
    "ignore:.*callbacks used to create the checkpoint need to be provided.*",
    "ignore:.*does not have many workers.*",
    "ignore:.*isinstance.treespec, LeafSpec.*",
    "ignore:.*GPU available but not used.*",
    "ignore:.*smaller than the logging interval.*",
    "ignore:.*directory .* exists and is not empty.*",
    "ignore:.*Starting from v1.9.0, `tensorboardX` has been removed.*",
)


class Tiny(pl.LightningModule):
    """A linear classifier that logs what people log."""

    def __init__(self, lr=0.1, dropout=0.0):
        super().__init__()
        self.lr, self.batch_size = lr, 4
        self.dropout = torch.nn.Dropout(dropout)
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(self.dropout(x))

    def _step(self, batch, stage):
        x, y = batch
        scores = self(x)
        loss = F.cross_entropy(scores, y)
        self.log(f"{stage}_loss", loss, on_step=stage == "train", on_epoch=True)
        self.log(f"{stage}_acc", (scores.argmax(-1) == y).float().mean(), on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train")

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self._step(batch, "val")

    def test_step(self, batch, batch_idx):
        self._step(batch, "test")

    def predict_step(self, batch, batch_idx):
        return self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def dataset(samples=12):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(samples, 4, generator=generator), torch.randint(3, (samples,), generator=generator)
    )


def loader(batches=3, size=4, **options):
    return DataLoader(dataset(batches * size), batch_size=size, **options)


class TinyData(pl.LightningDataModule):
    """Three training batches and two of everything else."""

    def train_dataloader(self):
        return loader(3)

    def val_dataloader(self):
        return loader(2)

    test_dataloader = predict_dataloader = val_dataloader


def trainer(*callbacks, **options):
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "max_epochs": 2,
    }
    return pl.Trainer(callbacks=list(callbacks), **{**quiet, **options})


def fit(*callbacks, model=None, data=None, ckpt_path=None, **options):
    made = trainer(*callbacks, **options)
    made.fit(model or Tiny(), datamodule=data or TinyData(), ckpt_path=ckpt_path)
    return made


def build(names, **options):
    """The callbacks of a combination."""
    return [kind(**options) for kind in COMBINATIONS[names]]


@contextmanager
def workplace(path, *, exporter=False):
    """A private working directory and spool; without an exporter process unless asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("LIQUID_TELEMETRY_SPOOL", str(path / "spool"))
        for name in ("TRACEPARENT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER"):
            patch.delenv(name, raising=False)
        if not exporter:
            patch.setattr(publish, "start_exporter", lambda *_: False)
            patch.setattr(publish, "ensure_exporter", lambda *_: False)
        yield path


class Written:
    """What one run left on disk."""

    def __init__(self, folder, spool=None):
        self.dir = Path(folder)
        self.run_id = self.dir.name
        self.spool = Path(spool or self.dir.parent.parent / "spool")

    @property
    def manifest(self):
        return json.loads((self.dir / "telemetry.json").read_text())

    @property
    def events(self):
        return lines(self.dir / "events.jsonl")

    def events_named(self, name):
        return [event for event in self.events if event["event"] == name]

    @property
    def spans(self):
        return read_spans(self.dir / "traces.jsonl")

    def spans_named(self, name):
        return [span for span in self.spans if span["name"] == name]

    @property
    def record(self):
        return json.loads((self.spool / "runs" / self.run_id / "0.json").read_text())

    @property
    def metrics(self):
        return samples((self.spool / "runs" / self.run_id / "0.prom").read_text())


def runs(folder="runs"):
    """The runs under a folder, the oldest first."""
    found = (
        [path for path in Path(folder).absolute().iterdir() if path.is_dir()] if Path(folder).exists() else []
    )
    return [Written(path) for path in sorted(found, key=lambda path: path.stat().st_ctime_ns)]


def only_run():
    (run,) = runs()
    return run


def lines(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in Path(path).read_text().splitlines()]


def samples(text):
    """OpenMetrics text as ``{name without prefix: {labels without model_name: value}}``; refuses doubles."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series = found.setdefault(sample.name.removeprefix("liquid_nn_"), {})
            labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "model_name"))
            assert labels not in series, f"{sample.name}{labels} twice"
            series[labels] = sample.value
    return found


def read_spans(path):
    """Spans of an OTLP JSON file in order, with plain attributes."""
    found = []
    for line in lines(path):
        for group in line["resourceSpans"]:
            resource = _attributes(group["resource"]["attributes"])
            for scope in group["scopeSpans"]:
                for span in scope["spans"]:
                    found.append(
                        {**span, "attributes": _attributes(span["attributes"]), "resource": resource}
                    )
                    found[-1]["start"] = int(span["startTimeUnixNano"])
                    found[-1]["end"] = int(span["endTimeUnixNano"])
    return found


def _attributes(pairs):
    kinds = {"intValue": int, "doubleValue": float}
    return {
        pair["key"]: kinds.get(kind, lambda value: value)(value)
        for pair in pairs
        for kind, value in pair["value"].items()
    }


def run_python(code, *arguments):
    """What a program of its own says; the timeout is for one that hangs."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
