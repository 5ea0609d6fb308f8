"""Inference and API: how fast the model answers, how well, and on what."""

from __future__ import annotations

from monitoring.grafana.generate.board import INFERENCE, Board, Row
from monitoring.grafana.generate.panels import Steps, graph, lower, number, upper
from monitoring.grafana.generate.queries import Query, Scope, quantile, rate
from monitoring.grafana.generate.rules import threshold

_HERE = Scope()
_PROBES = "/(metrics|health|ready|live)"
_GPU = "What the GPUs of the host tell."


def board() -> Board:
    """The dashboard."""
    return Board(
        INFERENCE,
        "How long inference takes, how many requests come, how good the answers are, and what they use.",
        [
            Row("Inference", [*_numbers(), _latency(), _requests(), _accuracy()]),
            Row("API", [_calls(), _errors(), _probes()]),
            Row("After training", [_served(), _deployments(), _benchmark(), _slower()]),
            Row("Host", [_memory(), _cores()]),
            Row("GPU", _gpus()),
        ],
    )


def _numbers() -> list[object]:
    buckets = _HERE.series("inference_duration_seconds", suffix="_bucket")
    requests = _HERE.series("inference_requests_total")
    name = "inference_duration_seconds"
    return [
        number("Half of the requests take less than", name, Query(quantile(0.5, buckets), "p50"), span=6),
        number("95 % of the requests take less than", name, Query(quantile(0.95, buckets), "p95"), span=6),
        number(
            "Requests a second",
            "inference_requests_total",
            Query(f"sum({rate(requests)})", "requests"),
            note="Here: a second.",
            unit="reqps",
            span=6,
        ),
        number(
            "Requests",
            "inference_requests_total",
            Query(f"sum({requests})", "requests"),
            note="Since the counter began.",
            span=6,
        ),
    ]


def _latency() -> object:
    buckets, total, count = (
        _HERE.series("inference_duration_seconds", suffix=suffix) for suffix in ("_bucket", "_sum", "_count")
    )
    return graph(
        "Inference latency",
        "inference_duration_seconds",
        Query(quantile(0.5, buckets), "p50"),
        Query(quantile(0.95, buckets), "p95"),
        Query(f"sum({rate(total)}) / sum({rate(count)})", "mean"),
    )


def _requests() -> object:
    requests = _HERE.series("inference_requests_total")
    return graph(
        "Request rate",
        "inference_requests_total",
        Query(f"sum by (model_type, device) ({rate(requests)})", "{{model_type}} on {{device}}"),
        note="Here: a second.",
        unit="reqps",
    )


def _accuracy() -> object:
    wanted = threshold("accuracy")
    return graph(
        "Model accuracy",
        "model_accuracy",
        Query(_HERE.series("model_accuracy", dataset="~val|test"), "{{model_name}} {{dataset}} {{slot}}"),
        note=f"On validation and test data; the alert's threshold is {wanted:g}.",
        steps=lower(wanted),
    )


def _calls() -> object:
    calls = _HERE.series("api_calls_total")
    return graph(
        "Calls",
        "api_calls_total",
        Query(f"sum by (endpoint, status) ({rate(calls)})", "{{endpoint}} {{status}}"),
        note="Here: a second.",
        unit="reqps",
    )


def _share(wrong: str, every: str) -> str:
    """Failures as a share, and 0 where there are none."""
    by = "sum by (endpoint)"
    return f"({by} ({rate(wrong)}) or 0 * {by} ({rate(every)}))\n  / ({by} ({rate(every)}) > 0)"


def _errors() -> object:
    limit = threshold("error_ratio")
    every = _HERE.series("api_calls_total", endpoint=f"!~{_PROBES}")
    wrong, refused = (
        _HERE.series("api_calls_total", endpoint=f"!~{_PROBES}", status=f"~{kind}..") for kind in (5, 4)
    )
    return graph(
        "Calls that fail",
        "api_calls_total",
        Query(_share(wrong, every), "{{endpoint}} 5xx"),
        Query(_share(refused, every), "{{endpoint}} 4xx"),
        note=f"Here: the share of them, probes and scrapes left out. More than {limit:g} of 5xx is an alert.",
        unit="percentunit",
        steps=upper(limit),
    )


def _probes() -> object:
    probes = _HERE.series("api_calls_total", endpoint=f"~{_PROBES}")
    return graph(
        "Probes and scrapes",
        "api_calls_total",
        Query(f"sum by (endpoint, status) ({rate(probes)})", "{{endpoint}} {{status}}"),
        note="Here: a second. 503 is the answer of a probe that says no.",
        unit="reqps",
    )


def _served() -> object:
    active = _HERE.series("active_models")
    return graph(
        "Models served",
        "active_models",
        Query(f"sum by (environment) ({active})", "{{environment}}"),
        note="By liquid-train serve.",
    )


def _benchmark() -> object:
    buckets = _HERE.series("benchmark_duration_seconds", suffix="_bucket")
    return graph(
        "Benchmarks",
        "benchmark_duration_seconds",
        Query(quantile(0.5, buckets), "p50"),
        Query(quantile(0.95, buckets), "p95"),
        note="Of all its cases together; docs/bench.md tells them apart.",
    )


def _slower() -> object:
    verdict = _HERE.series("performance_regression")
    return graph(
        "Slower than the baseline",
        "performance_regression",
        Query(f"last_over_time({verdict}[1d])", "{{model_name}} {{instance}}"),
        note="What the last benchmark within a day said; 1 is an alert.",
        steps=upper(1),
    )


def _deployments() -> object:
    deployments = _HERE.series("model_deployments_total")
    return graph(
        "Deployments",
        "model_deployments_total",
        Query(f"sum by (target_platform, status) ({deployments})", "{{target_platform}} {{status}}"),
        note="Since the counter began.",
    )


def _memory() -> object:
    limit = threshold("memory_bytes")
    return graph(
        "Memory",
        "memory_usage_bytes",
        Query(_HERE.series("memory_usage_bytes"), "{{component}} {{instance}}"),
        note="The process above the threshold is an alert.",
        steps=upper(limit),
        span=12,
    )


def _cores() -> object:
    cores = Query(_HERE.series("cpu_utilization_percent"), "core {{core}} {{instance}}")
    return graph("Cores", "cpu_utilization_percent", cores, steps=upper(95, "yellow"), span=12)


def _gpus() -> list[object]:
    wanted: dict[str, tuple[str, Steps]] = {
        "GPU use": ("gpu_utilization_percent", ((None, "green"),)),
        "GPU temperature": ("gpu_temperature_celsius", upper(85)),
        "GPU power": ("gpu_power_watts", ((None, "green"),)),
    }
    return [
        graph(title, name, Query(_HERE.series(name), "GPU {{device}} {{instance}}"), note=_GPU, steps=steps)
        for title, (name, steps) in wanted.items()
    ]
