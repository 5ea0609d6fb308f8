"""What people write by hand, and the providers they bring."""

from __future__ import annotations

import io
from typing import Any

import structlog
from lightning.pytorch import Callback, LightningModule, Trainer
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Gauge


class Nowhere(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Any) -> SpanExportResult:
        """Say that all is well."""
        return SpanExportResult.SUCCESS


def provider() -> TracerProvider:
    """A user's SDK provider with a batch processor."""
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(Nowhere()))
    return made


class Empty(Callback):
    """Lightning's own cost of one more callback."""


class ByHand(Callback):
    """A gauge, a span and a log line for every batch."""

    def __init__(self) -> None:
        self.gauge = Gauge("loss", "Loss", ["epoch"], registry=CollectorRegistry())
        self.provider = provider()
        self.tracer = self.provider.get_tracer("by hand")
        self.lines = structlog.wrap_logger(
            structlog.PrintLogger(io.StringIO()), processors=[structlog.processors.JSONRenderer()]
        )

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, index: int) -> None:
        """Open a span."""
        self.span = self.tracer.start_span(
            "batch", attributes={"epoch": trainer.current_epoch, "batch": index}
        )

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Set the gauge, end the span, write a line."""
        loss = outputs["loss"].item()
        self.gauge.labels(epoch=trainer.current_epoch).set(loss)
        self.span.set_attribute("loss", loss)
        self.span.end()
        self.lines.info("batch", epoch=trainer.current_epoch, batch=index, loss=loss)

    def teardown(self, *_: Any, **__: Any) -> None:
        """Close the provider."""
        self.provider.shutdown()
