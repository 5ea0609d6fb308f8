"""The callbacks that people add to their Trainer.

A backend, and the library it is made with, is imported when a run of its callback is set up.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from liquid_telemetry.base import TelemetryCallback
from liquid_telemetry.observe.clock import Clock
from liquid_telemetry.observe.run import ObserverOptions

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from prometheus_client import CollectorRegistry

    from liquid_telemetry.metrics.backend import SinkOptions
    from liquid_telemetry.observe.backend import Backend

__all__ = ["OpenTelemetrySpans", "PrometheusMetrics", "StructlogEvents", "Telemetry"]


class PrometheusMetrics(TelemetryCallback):
    """Metrics for Prometheus, served by a small process of their own that outlives the training.

    Args:
        enabled: Whether to do anything at all.
        model_name: Value of the ``model_name`` label; the LightningModule's class name by default.
        host: Address to serve at.
        port: Port to serve at; 0 for a free one. A live exporter keeps its address.
        dir: Folder that gets a sub-folder for each run.
        loss_key: Name of the training loss in the step's output or among the logged values.
        accuracy_key: Name of the accuracy among the logged values.
        gradient_norm: Export the gradient norm, measured once a second.
        device_phases: Export how long the GPU works on each phase, measured for one batch in ten.
        stop_on_nonfinite: End the run by a :class:`NonFiniteLossError` within about a second of a training loss that
            is NaN or infinite.
        pushgateway: URL of a Pushgateway that the exporter pushes to, as ``http://localhost:9091``.
        textfile: Directory of node_exporter's textfile collector that the exporter writes to.
        otlp_metrics: Base URL of an OTLP receiver that the exporter sends to; True for the one that OpenTelemetry's
            variables name.
        registry: Show the metrics there instead of serving them; the fate of the job is not watched then.
        clock: Monotonic nanoseconds, for tests.
    """

    def __init__(
        self,
        enabled: bool = True,
        model_name: str | None = None,
        host: str = "127.0.0.1",
        port: int = 9464,
        dir: str = "runs",
        loss_key: str | None = None,
        accuracy_key: str | None = None,
        gradient_norm: bool = False,
        device_phases: bool = False,
        stop_on_nonfinite: bool = False,
        pushgateway: str | None = None,
        textfile: str | None = None,
        otlp_metrics: bool | str = False,
        *,
        registry: CollectorRegistry | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            enabled,
            ObserverOptions(
                model_name=model_name,
                dir=dir,
                loss_key=loss_key,
                accuracy_key=accuracy_key,
                gradient_norm=gradient_norm,
                device_phases=device_phases,
                stop_on_nonfinite=stop_on_nonfinite,
                clock=clock,
            ),
        )
        self._host, self._port, self._registry = host, _check_port(port), registry
        self._sinks = _check_sinks(pushgateway, textfile, otlp_metrics, registry)

    def _backends(self) -> Sequence[Backend]:
        return [_metrics(self._host, self._port, self._registry, self._sinks)]


class OpenTelemetrySpans(TelemetryCallback):
    """A trace of the run: epochs, batches, validations, checkpoints.

    Spans go to the given provider, else to the global SDK provider if the program has one, else to
    ``traces.jsonl`` in the run directory and to the OTLP endpoint if there is one.

    Args:
        enabled: Whether to do anything at all.
        model_name: Name of the model; the LightningModule's class name by default.
        dir: Folder that gets a sub-folder for each run.
        loss_key: Name of the training loss in the step's output or among the logged values.
        accuracy_key: Name of the accuracy among the logged values.
        stop_on_nonfinite: End the run by a :class:`NonFiniteLossError` within about a second of a training loss that
            is NaN or infinite.
        otlp_endpoint: Collector, Jaeger or Tempo, as ``http://localhost:4318``; the standard ``OTEL_*``
            variables are honoured as well. Needs ``pip install 'liquid-train[otlp]'``.
        trace_url: Where a trace can be seen, as ``http://jaeger:16686/trace/{trace_id}``, for the live page; a Jaeger
            on this machine is found without it.
        tracer_provider: The provider to use; it is neither flushed nor shut down.
        clock: Monotonic nanoseconds, for tests.
    """

    def __init__(
        self,
        enabled: bool = True,
        model_name: str | None = None,
        dir: str = "runs",
        loss_key: str | None = None,
        accuracy_key: str | None = None,
        otlp_endpoint: str | None = None,
        stop_on_nonfinite: bool = False,
        trace_url: str | None = None,
        *,
        tracer_provider: TracerProvider | None = None,
        clock: Clock | None = None,
    ) -> None:
        options = ObserverOptions(
            model_name=model_name,
            dir=dir,
            loss_key=loss_key,
            accuracy_key=accuracy_key,
            stop_on_nonfinite=stop_on_nonfinite,
            clock=clock,
        )
        super().__init__(enabled, options)
        self._endpoint, self._provider = _check_endpoint(otlp_endpoint, enabled), tracer_provider
        self._trace_url = _check_page(trace_url)

    def _backends(self) -> Sequence[Backend]:
        return [_traces(self._provider, self._endpoint, self._trace_url)]


class StructlogEvents(TelemetryCallback):
    """JSON lines that carry the ids of the trace, and readable lines when stderr is a terminal.

    Args:
        enabled: Whether to do anything at all.
        model_name: Name of the model; the LightningModule's class name by default.
        dir: Folder that gets a sub-folder for each run.
        loss_key: Name of the training loss in the step's output or among the logged values.
        accuracy_key: Name of the accuracy among the logged values.
        stop_on_nonfinite: End the run by a :class:`NonFiniteLossError` within about a second of a training loss that
            is NaN or infinite.
        console: Print readable lines when stderr is a terminal.
        logger: A structlog logger that gets every event too.
        clock: Monotonic nanoseconds, for tests.
    """

    def __init__(
        self,
        enabled: bool = True,
        model_name: str | None = None,
        dir: str = "runs",
        loss_key: str | None = None,
        accuracy_key: str | None = None,
        console: bool = True,
        stop_on_nonfinite: bool = False,
        *,
        logger: Any = None,
        clock: Clock | None = None,
    ) -> None:
        options = ObserverOptions(
            model_name=model_name,
            dir=dir,
            loss_key=loss_key,
            accuracy_key=accuracy_key,
            stop_on_nonfinite=stop_on_nonfinite,
            clock=clock,
        )
        super().__init__(enabled, options)
        self._console, self._logger = console, logger

    def _backends(self) -> Sequence[Backend]:
        return [_events(self._logger, self._console)]


class Telemetry(TelemetryCallback):
    """Metrics, traces and logs in one callback; see the three for what each option means.

    Args:
        enabled: Whether to do anything at all.
        model_name: Name of the model; the LightningModule's class name by default.
        host: Address to serve metrics at.
        port: Port to serve metrics at; 0 for a free one. A live exporter keeps its address.
        dir: Folder that gets a sub-folder for each run.
        loss_key: Name of the training loss in the step's output or among the logged values.
        accuracy_key: Name of the accuracy among the logged values.
        otlp_endpoint: Collector, Jaeger or Tempo to send spans to, as ``http://localhost:4318``.
        trace_url: Where a trace can be seen, as ``http://jaeger:16686/trace/{trace_id}``, for the live page.
        metrics: Whether to serve metrics.
        traces: Whether to record spans.
        events: Whether to write the event log.
        console: Print readable events when stderr is a terminal.
        gradient_norm: Export the gradient norm, measured once a second.
        device_phases: Export how long the GPU works on each phase, measured for one batch in ten.
        stop_on_nonfinite: End the run by a :class:`NonFiniteLossError` within about a second of a training loss that
            is NaN or infinite.
        pushgateway: URL of a Pushgateway that the exporter pushes to, as ``http://localhost:9091``.
        textfile: Directory of node_exporter's textfile collector that the exporter writes to.
        otlp_metrics: Base URL of an OTLP receiver that the exporter sends to; True for the one that OpenTelemetry's
            variables name.
        registry: Show the metrics there instead of serving them.
        tracer_provider: The provider to make spans with.
        logger: A structlog logger that gets every event too.
        clock: Monotonic nanoseconds, for tests.
    """

    def __init__(
        self,
        enabled: bool = True,
        model_name: str | None = None,
        host: str = "127.0.0.1",
        port: int = 9464,
        dir: str = "runs",
        loss_key: str | None = None,
        accuracy_key: str | None = None,
        otlp_endpoint: str | None = None,
        metrics: bool = True,
        traces: bool = True,
        events: bool = True,
        console: bool = True,
        gradient_norm: bool = False,
        device_phases: bool = False,
        stop_on_nonfinite: bool = False,
        pushgateway: str | None = None,
        textfile: str | None = None,
        otlp_metrics: bool | str = False,
        trace_url: str | None = None,
        *,
        registry: CollectorRegistry | None = None,
        tracer_provider: TracerProvider | None = None,
        logger: Any = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            enabled,
            ObserverOptions(
                model_name=model_name,
                dir=dir,
                loss_key=loss_key,
                accuracy_key=accuracy_key,
                gradient_norm=gradient_norm,
                device_phases=device_phases,
                stop_on_nonfinite=stop_on_nonfinite,
                clock=clock,
            ),
        )
        self._signals = (metrics, traces, events)
        self._host, self._port, self._registry = host, _check_port(port), registry
        self._sinks = _check_sinks(pushgateway, textfile, otlp_metrics, registry)
        self._endpoint, self._provider = _check_endpoint(otlp_endpoint, enabled), tracer_provider
        self._trace_url = _check_page(trace_url)
        self._console, self._logger = console, logger

    def _backends(self) -> Sequence[Backend]:
        metrics, traces, events = self._signals
        backends: list[Backend] = []
        if metrics:
            backends.append(_metrics(self._host, self._port, self._registry, self._sinks))
        if traces:
            backends.append(_traces(self._provider, self._endpoint, self._trace_url))
        if events:
            backends.append(_events(self._logger, self._console))
        return backends


def _metrics(host: str, port: int, registry: CollectorRegistry | None, sinks: SinkOptions) -> Backend:
    from liquid_telemetry.metrics.backend import PrometheusBackend

    return PrometheusBackend(host, port, registry, sinks)


def _traces(provider: TracerProvider | None, endpoint: str | None, trace_url: str | None) -> Backend:
    from liquid_telemetry.tracing.backend import TracingBackend

    return TracingBackend(provider, endpoint, trace_url)


def _events(logger: Any, console: bool) -> Backend:
    from liquid_telemetry.logs.backend import StructlogBackend

    return StructlogBackend(logger, console)


def _check_port(port: int) -> int:
    if not 0 <= port <= 65535:
        raise ValueError(f"port={port}: must be 0 (a free one) to 65535; the default is 9464")
    return port


def _check_sinks(
    pushgateway: str | None,
    textfile: str | None,
    otlp_metrics: bool | str,
    registry: CollectorRegistry | None,
) -> SinkOptions:
    options = (pushgateway, textfile, otlp_metrics)
    if registry is not None and any(options):
        raise ValueError(
            f"registry={registry!r} with pushgateway, textfile or otlp_metrics: the exporter process sends, and "
            "with a registry there is none; leave one of them out"
        )
    if any(options):
        from liquid_telemetry.spool import find_sinks

        find_sinks(*options, {name: value for name, value in os.environ.items() if name.startswith("OTEL_")})
    return options


def _check_endpoint(endpoint: str | None, enabled: bool) -> str | None:
    """Fail while the program is being written, not in the night: the scheme, the protocol, the package."""
    if endpoint is not None and enabled:
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"otlp_endpoint={endpoint!r}: must be a URL such as 'http://localhost:4318'")
        from liquid_telemetry.tracing.endpoint import find_destination

        find_destination(endpoint, os.environ)
    return endpoint


def _check_page(trace_url: str | None) -> str | None:
    if trace_url is not None and not (
        trace_url.startswith(("http://", "https://")) and "{trace_id}" in trace_url
    ):
        raise ValueError(
            f"trace_url={trace_url!r}: must be a URL with {{trace_id}}, as 'http://localhost:16686/trace/{{trace_id}}'"
        )
    return trace_url
