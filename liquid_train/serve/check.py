"""What a request asks, held against the model and the limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from liquid_train.data.batch import Series
from liquid_train.serve.model import Model, series_of
from liquid_train.serve.schemas import PredictRequest, StepRequest
from liquid_train.serve.settings import Limits


class UnfitError(ValueError):
    """The request cannot be answered; the message is one line that names the place, the value and the rule."""


def check(request: PredictRequest, model: Model, limits: Limits) -> None:
    """Require a request that the model can answer.

    Raises:
        UnfitError: It cannot.
    """
    values, spans, lengths = request.values, request.timespans, request.lengths
    if len(values) > limits.series:
        raise UnfitError(f"values: {len(values)} series, at most {limits.series} in one request")
    for name, given in (("timespans", spans), ("lengths", lengths)):
        if given is not None and len(given) != len(values):
            raise UnfitError(f"{name}: {len(given)} of them for {len(values)} series")
    for at, series in enumerate(values):
        _check_series(at, series, model.channels, limits.steps)
        if spans is not None and len(spans[at]) != len(series):
            raise UnfitError(f"timespans.{at}: {len(spans[at])} time spans for {len(series)} steps")
        if lengths is not None and lengths[at] > len(series):
            raise UnfitError(f"lengths.{at}: {lengths[at]} of {len(series)} steps")


def _check_series(at: int, series: Sequence[Sequence[float]], channels: int, most: int) -> None:
    if len(series) > most:
        raise UnfitError(f"values.{at}: {len(series)} steps, at most {most}")
    for step, row in enumerate(series):
        if len(row) != channels:
            raise UnfitError(f"values.{at}.{step}: {len(row)} channels, the model has {channels}")


def check_step(request: StepRequest, model: Model) -> None:
    """Require a step that the model can take.

    Raises:
        UnfitError: It cannot.
    """
    if len(request.values) != model.channels:
        raise UnfitError(f"values: {len(request.values)} channels, the model has {model.channels}")


def tensors(request: PredictRequest) -> Iterator[Series]:
    """Yield the series of a request, without their padding."""
    for at, series in enumerate(request.values):
        length = request.lengths[at] if request.lengths is not None else len(series)
        spans = request.timespans[at][:length] if request.timespans is not None else None
        yield series_of(series[:length], spans)
