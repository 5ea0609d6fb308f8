"""Liquid neural networks (CfC and LTC), the data to train them on and the `liquid-train` command.

The public names are loaded when first used, so that `import liquid_train` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from liquid_train.nn import LTC, CfC, CfCCell, LTCCell
    from liquid_train.tasks import LiquidClassifier, LiquidRegressor

__version__ = "0.1.0"

__all__ = ["LTC", "CfC", "CfCCell", "LTCCell", "LiquidClassifier", "LiquidRegressor"]

_HOMES = {
    "CfC": "liquid_train.nn",
    "CfCCell": "liquid_train.nn",
    "LTC": "liquid_train.nn",
    "LTCCell": "liquid_train.nn",
    "LiquidClassifier": "liquid_train.tasks",
    "LiquidRegressor": "liquid_train.tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
