"""PromQL out of the catalogue: a metric or a label that is not in it is an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from liquid_telemetry.signals import JOB_STATES, METRICS

IDENTITY = ("job", "instance", "model_name", "slot")
"""Labels that tell a run from the others of its moment."""


@dataclass(frozen=True)
class Query:
    """One line of a panel.

    Args:
        expr: PromQL.
        legend: What names a series, or a table's column.
        exemplars: Whether exemplars are asked for.
    """

    expr: str
    legend: str
    exemplars: bool = False


_MODELS: dict[str, dict[str, str]] = {
    "none": {},
    "one": {"model_name": "$model", "slot": "~$slot"},
    "several": {"model_name": "~$model"},
}


@dataclass(frozen=True)
class Scope:
    """Which series a dashboard is about: matchers that every selector of it has.

    Args:
        models: Variables of the dashboard that choose among models: ``several``, ``one`` with its slots, or ``none``.
    """

    models: Literal["none", "one", "several"] = "several"

    def series(self, name: str, *, suffix: str = "", **labels: str) -> str:
        """Select a metric of the catalogue.

        Args:
            name: Without the common prefix.
            suffix: Of a histogram's series.
            **labels: Values to match, as :func:`selector` takes them.

        Raises:
            ValueError: The catalogue has no such metric or label.
        """
        metric = METRICS.get(name)
        if metric is None:
            raise ValueError(f"no metric {name!r} in the catalogue")
        if unknown := set(labels) - {*metric.labels, "le"}:
            raise ValueError(f"{name} has no label {', '.join(sorted(unknown))}")
        matchers = {"job": "~$job", "instance": "~$instance"}
        if metric.model_labelled:
            matchers |= _MODELS[self.models]
        return selector(metric.full_name + suffix, **matchers, **labels)


def selector(name: str, **matchers: str) -> str:
    """Select a series by its full name; ``~`` before a value is a regular expression, ``!~`` one to leave out."""
    pairs = (f'{label}{_operator(value)}"{value.lstrip("!~")}"' for label, value in matchers.items())
    return f"{name}{{{', '.join(pairs)}}}" if matchers else name


def _operator(value: str) -> str:
    return "!~" if value.startswith("!~") else "=~" if value.startswith("~") else "="


def rate(series: str) -> str:
    """Increase a second, over a window that has at least four scrapes."""
    return f"rate({series}[$__rate_interval])"


def increase(series: str) -> str:
    """Increase over the dashboard's time range, of a counter that only takes whole steps."""
    return f"round(increase({series}[$__range]))"


def quantile(q: float, buckets: str, *by: str) -> str:
    """A quantile of a histogram's recent observations."""
    labels = ", ".join(("le", *by))
    return f"histogram_quantile({q}, sum by ({labels}) ({rate(buckets)}))"


def of_runs(expr: str, scope: Scope, **run: str) -> str:
    """Give series of runs their ``run_id``, so that runs of one model that follow one another are told apart.

    Args:
        expr: With the labels of ``IDENTITY``; an operation needs brackets.
        scope: That of the expression.
        **run: ``run_id`` of the runs that are kept.
    """
    info = scope.series("training_info", **run)
    return f"{expr}\n  * on ({', '.join(IDENTITY)}) group_left (run_id) {info}"


def last(expr: str) -> str:
    """The last value in the dashboard's time range, also of a run that has ended.

    An end is on show for two scrapes, and looked at as often as Prometheus evaluates rules.
    """
    return f"last_over_time(({expr})[$__range:])"


def state(scope: Scope) -> str:
    """The state of each run as its position in ``JOB_STATES``."""
    numbered = (
        f"({scope.series('training_job_state', state=name)} == 1) * {number}"
        for number, name in enumerate(JOB_STATES)
    )
    return "max without (state) (\n  " + "\n  or ".join(numbered) + "\n)"
