"""The catalogue: every metric, span, attribute and event, declared once.

Code, reference docs, dashboards, alert tests and the live page read it. Standard library only, so that the
exporter process can import it without torch.
"""

from liquid_telemetry.signals._events import EVENTS, LOG_TAIL, Event
from liquid_telemetry.signals._metrics import (
    DEPLOYMENT_STATUSES,
    FAILURE_REASONS,
    INTERRUPTION_REASONS,
    JOB_STATES,
    METRICS,
    PHASES,
    PREFIX,
    RANK_METRICS,
    RANK_STATS,
    STAGES,
    Metric,
)
from liquid_telemetry.signals._spans import ATTRIBUTES, NAMESPACE, REQUEST_SPANS, SPANS, TRACER, Span

__all__ = [
    "ATTRIBUTES",
    "DEPLOYMENT_STATUSES",
    "EVENTS",
    "FAILURE_REASONS",
    "INTERRUPTION_REASONS",
    "JOB_STATES",
    "LOG_TAIL",
    "METRICS",
    "NAMESPACE",
    "PHASES",
    "PREFIX",
    "RANK_METRICS",
    "RANK_STATS",
    "REQUEST_SPANS",
    "SPANS",
    "STAGES",
    "TRACER",
    "Event",
    "Metric",
    "Span",
]
