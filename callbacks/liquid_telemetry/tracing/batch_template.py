"""Batch spans by the thousand: the JSON of an epoch's batches differs in a few numbers only."""

from __future__ import annotations

import json
import math

from liquid_telemetry.observe.backend import SpanRef
from liquid_telemetry.signals import NAMESPACE
from liquid_telemetry.tracing.otlp_json import Attributes, encode_attributes, encode_value
from liquid_telemetry.tracing.sink import BatchSpan

PHASE_NAMES = ("data_wait", "transfer", "forward", "backward", "optimizer")
_COMMON = ("batch.index", "batch.samples", "global_step")


def batch_attributes(batch: BatchSpan) -> dict[str, str | bool | int | float]:
    """Attributes of one batch, without those it shares with its epoch."""
    attributes: dict[str, str | bool | int | float] = {
        NAMESPACE + "batch.index": batch.batch_index,
        NAMESPACE + "batch.samples": batch.samples,
        NAMESPACE + "global_step": batch.global_step,
    }
    if batch.loss is not None:
        attributes[NAMESPACE + "loss"] = batch.loss
    if batch.skipped:
        attributes[NAMESPACE + "batch.skipped"] = True
    for name, seconds in zip(PHASE_NAMES, batch.phase_seconds, strict=False):
        attributes[f"{NAMESPACE}{name}.duration"] = seconds
    return attributes


class BatchTemplate:
    """The spans of one epoch's batches as %-templates, filled with numbers.

    Args:
        name: train batch, …
        epoch: The parent.
        shared: Attributes that all batches of the epoch have.
    """

    def __init__(self, name: str, epoch: SpanRef, shared: Attributes) -> None:
        head = {
            "traceId": epoch.trace_id,
            "parentSpanId": epoch.span_id,
            "name": name,
            "kind": 1,
            "flags": 1,
            "status": {},
        }
        fixed = json.dumps(head, separators=(",", ":"))[:-1]
        attributes = json.dumps(encode_attributes(shared), separators=(",", ":"))[:-1]
        self._head = (
            f'{fixed},"spanId":"SPAN","startTimeUnixNano":"START","endTimeUnixNano":"END","attributes":{attributes}'
        ).replace("%", "%%")
        for word, place in (("SPAN", "%s"), ("START", "%d"), ("END", "%d")):
            self._head = self._head.replace(f'"{word}"', f'"{place}"')
        self._templates: dict[tuple[bool, bool, int], str] = {}

    def fill(self, span_id: str, batch: BatchSpan) -> str:
        """The JSON of one span."""
        shape = (batch.loss is not None, batch.skipped, len(batch.phase_seconds))
        template = self._templates.get(shape)
        if template is None:
            template = self._templates[shape] = self._template(*shape)
        loss = () if batch.loss is None else (_number(batch.loss),)
        return template % (
            span_id,
            batch.start_ns,
            max(batch.start_ns, batch.end_ns),
            batch.batch_index,
            batch.samples,
            batch.global_step,
            *loss,
            *batch.phase_seconds,
        )

    def _template(self, has_loss: bool, skipped: bool, phases: int) -> str:
        parts = [_attribute(name, '{"intValue":"%d"}') for name in _COMMON]
        if has_loss:
            parts.append(_attribute("loss", '{"doubleValue":%s}'))
        if skipped:
            parts.append(_attribute("batch.skipped", '{"boolValue":true}'))
        parts += [_attribute(f"{name}.duration", '{"doubleValue":%r}') for name in PHASE_NAMES[:phases]]
        return f"{self._head},{','.join(parts)}]}}"


def _attribute(name: str, value: str) -> str:
    return f'{{"key":"{NAMESPACE}{name}","value":{value}}}'


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else json.dumps(encode_value(value)["doubleValue"])
