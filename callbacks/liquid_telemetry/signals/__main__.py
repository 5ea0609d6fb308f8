"""Print the catalogue as Markdown: ``python -m liquid_telemetry.signals > docs/signals.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from liquid_telemetry.signals import ATTRIBUTES, EVENTS, METRICS, NAMESPACE, PREFIX, SPANS, TRACER
from liquid_telemetry.signals._events import COMMON_FIELDS


def markdown() -> str:
    """The reference page."""
    return "\n".join([*_head(), *_metrics(), *_spans(), *_events()]) + "\n"


def _head() -> Iterator[str]:
    yield "# Every signal"
    yield ""
    yield "Made from the catalogue in `liquid_telemetry.signals` by `python -m liquid_telemetry.signals`."


def _metrics() -> Iterator[str]:
    yield "\n## Metrics\n"
    yield (
        f"Names begin with `{PREFIX}`. Epochs count from zero. Every sample carries `model_name` unless marked `*`; "
        "a second run of the same model at the same time carries `slot` as well. Histograms have the series "
        "`_bucket`, `_sum` and `_count`.\n"
    )
    yield "| metric | type | labels | unit | meaning |"
    yield "|---|---|---|---|---|"
    for metric in METRICS.values():
        star = "" if metric.model_labelled else "*"
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}`{star} | {metric.type} | {labels} | {metric.unit} | {metric.help} |"


def _spans() -> Iterator[str]:
    yield "\n## Spans\n"
    yield f"Tracer `{TRACER}`; attributes begin with `{NAMESPACE}`; durations are seconds.\n"
    yield "| span | parent | meaning | attributes |"
    yield "|---|---|---|---|"
    for span in SPANS.values():
        attributes = ", ".join(f"`{name}`" for name in span.attributes)
        yield f"| `{span.name}` | {f'`{span.parent}`' if span.parent else ''} | {span.help} | {attributes} |"
    yield "\n| attribute | meaning |"
    yield "|---|---|"
    for name, text in ATTRIBUTES.items():
        yield f"| `{name}` | {text} |"


def _events() -> Iterator[str]:
    common = ", ".join(f"`{name}`" for name in COMMON_FIELDS)
    yield "\n## Log events\n"
    yield f"One JSON object a line. All have {common} (the last two where a span exists). NaN becomes null.\n"
    yield "| event | level | meaning | fields |"
    yield "|---|---|---|---|"
    for event in EVENTS.values():
        fields = ", ".join(f"`{name}`" for name in event.fields)
        yield f"| `{event.name}` | {event.level} | {event.help} | {fields} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
