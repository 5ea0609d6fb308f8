"""What `Inference` costs a request, beside the same told by hand with OpenTelemetry's SDK and prometheus_client.

    python -m benchmarks.inference

Every request is empty, so that only the telling is timed. Medians of interleaved rounds, and their spread.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Counter, Histogram

from liquid_telemetry import Inference

ROUNDS, REQUESTS = 15, 1000
_STEPS = ("preprocess_input", "model_forward_pass", "postprocess_output")


class _Nowhere(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def with_helper(inference: Inference) -> Callable[[], None]:
    @inference
    def answer() -> None:
        with inference.preprocess():
            pass
        with inference.forward():
            pass
        with inference.postprocess():
            pass

    return answer


def by_hand() -> Callable[[], None]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_Nowhere()))
    tracer, registry = provider.get_tracer("by hand"), CollectorRegistry()
    duration = Histogram("duration_seconds", "Duration.", registry=registry)
    count = Counter("requests", "Requests.", ["model_type", "device"], registry=registry)

    def answer() -> None:
        with duration.time(), tracer.start_as_current_span("liquid_nn_inference"):
            for step in _STEPS:
                with tracer.start_as_current_span(step):
                    pass
        count.labels("x", "cpu").inc()

    return answer


def one_round(answer: Callable[[], None]) -> float:
    """Microseconds of a request."""
    began = time.perf_counter()
    for _ in range(REQUESTS):
        answer()
    return (time.perf_counter() - began) / REQUESTS * 1e6


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIQUID_TELEMETRY_SPOOL"] = f"{folder}/spool"
        registry = CollectorRegistry()
        helpers = {
            "Inference": Inference(model_type="x", dir=folder, registry=registry),
            "Inference, switched off": Inference(enabled=False),
        }
        answers = {name: with_helper(helper) for name, helper in helpers.items()} | {"by hand": by_hand()}
        found: dict[str, list[float]] = {name: [] for name in answers}
        for _ in range(ROUNDS + 1):
            for name, answer in answers.items():
                found[name].append(one_round(answer))
        for name, times in found.items():
            low, middle, high = statistics.quantiles(times[1:], n=4)
            print(f"{name:24} {middle:7.1f} us a request (quartiles {low:.1f} to {high:.1f})")
        print(
            f"Inference / by hand: {statistics.median(found['Inference']) / statistics.median(found['by hand']):.2f}"
        )
        for helper in helpers.values():
            helper.close()


if __name__ == "__main__":
    main()
