"""What clients send and get, as JSON. Shapes: B series, T steps, C channels, K outputs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from liquid_train.serve.model import Kind

_LARGEST = 3.4e38  # of float32
Number = Annotated[float, Field(strict=True, ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]
Span = Annotated[float, Field(strict=True, ge=0, le=_LARGEST, allow_inf_nan=False)]
Length = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
Series = Annotated[list[list[Number]], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PredictRequest(_Strict):
    """Whole sequences."""

    values: list[Series] = Field(
        min_length=1,
        description="Series, each a list of time steps, each a list of one number for each channel, normalised as in "
        "training. Series may differ in length.",
        examples=[[[[0.1], [0.2]], [[0.3], [0.1], [0.5]]]],
    )
    timespans: list[list[Span]] | None = Field(
        None,
        description="For each series the time since the step before, one number for each step; 1 by default.",
    )
    lengths: list[Length] | None = Field(
        None, description="For padded series how many of their steps count; all by default."
    )


class PredictResponse(BaseModel):
    """The outputs, in the order of the series."""

    outputs: list[list[float]] = Field(description="One row for each series.")
    kind: Kind = Field(description="What a row holds.")
    model: str
    version: str


class StepRequest(_Strict):
    """One step of a stream."""

    values: list[Number]
    timespan: Span = 1.0


class StepResponse(BaseModel):
    """What is known after a step: what /predict says of all steps so far."""

    step: int = Field(description="From zero.")
    output: list[float]


class Problem(BaseModel):
    """Why there is no answer."""

    error: str


class ModelInfo(BaseModel):
    """What is served."""

    model: str
    version: str
    kind: Kind
    channels: int
    outputs: int
    environment: str
    max_series: int
    max_steps: int
    max_payload: int


class State(BaseModel):
    """Of a probe."""

    status: str


class Health(BaseModel):
    """Of the server and its host."""

    status: Literal["healthy", "degraded", "critical"]
    reasons: list[str]
    timestamp: str
    uptime: float
    version: str
    resources: dict[str, float]
    components: dict[str, State]
