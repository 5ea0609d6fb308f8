"""From event dictionaries to lines: valid JSON, whatever is in them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, MutableMapping
from datetime import datetime, timezone
from typing import Any

_ORDER = ("timestamp", "level", "event", "logger", "run_id", "model_name", "trace_id", "span_id")


def timestamp(unix_ns: int) -> str:
    """ISO 8601 in UTC, to the microsecond."""
    seconds, nanoseconds = divmod(unix_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds // 1000:06d}Z"


def render_json(logger: object, method: str, event: MutableMapping[str, Any]) -> str:
    """A structlog renderer: the common fields first, non-finite numbers as null (JSON has no NaN)."""
    ordered = {key: event[key] for key in _ORDER if event.get(key) is not None}
    ordered |= {key: value for key, value in event.items() if key not in _ORDER}
    return json.dumps(finite(ordered), default=str, separators=(", ", ": "))


def finite(value: Any) -> Any:
    """The value with every non-finite float replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
