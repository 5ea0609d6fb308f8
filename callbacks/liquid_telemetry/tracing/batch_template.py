"""Batch spans by the thousand: the JSON of an epoch's batches differs in a few numbers only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from math import isfinite

from liquid_telemetry.observe.backend import SpanRef
from liquid_telemetry.signals import NAMESPACE
from liquid_telemetry.tracing.otlp_json import Attributes, encode_attributes, encode_value
from liquid_telemetry.tracing.sink import BatchSpan

PHASE_NAMES = ("data_wait", "transfer", "forward", "backward", "optimizer")
PHASES = len(PHASE_NAMES)
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
    for name, nanoseconds in zip(PHASE_NAMES, batch.phase_ns, strict=False):
        attributes[f"{NAMESPACE}{name}.duration"] = nanoseconds / 1e9
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
        shapes = product((False, True), repeat=3)
        self._templates = {shape: self._template(*shape) for shape in shapes}

    def fill(self, span_ids: Sequence[str], batches: Sequence[BatchSpan]) -> str:
        """The JSON of spans, with commas between them: many in one go cost half as much as one by one."""
        templates: list[str] = []
        values: list[str | int | float] = []
        for span_id, (start, end, index, samples, step, loss, skipped, phase_ns) in zip(
            span_ids, batches, strict=True
        ):
            templates.append(self._templates[loss is None, skipped, not phase_ns])
            values += (span_id, start, max(start, end), index, samples, step)
            if loss is not None:
                values.append(loss if isfinite(loss) else json.dumps(encode_value(loss)["doubleValue"]))
            values += phase_ns[:PHASES]
        return ",".join(templates) % tuple(values)

    def _template(self, no_loss: bool, skipped: bool, no_phases: bool) -> str:
        parts = [_attribute(name, '{"intValue":"%d"}') for name in _COMMON]
        if not no_loss:
            parts.append(_attribute("loss", '{"doubleValue":%s}'))
        if skipped:
            parts.append(_attribute("batch.skipped", '{"boolValue":true}'))
        if not no_phases:  # whole nanoseconds as a JSON number of seconds
            parts += [_attribute(f"{name}.duration", '{"doubleValue":%de-9}') for name in PHASE_NAMES]
        return f"{self._head},{','.join(parts)}]}}"


def _attribute(name: str, value: str) -> str:
    return f'{{"key":"{NAMESPACE}{name}","value":{value}}}'
