"""What an import costs and what it drags in."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import liquid_telemetry",
        "import liquid_telemetry.exporter, liquid_telemetry.spool",
        "import liquid_train",
    ],
)
def test_packages_import_without_torch_and_lightning(statement: str) -> None:
    loaded = _modules_after(statement)
    assert not loaded & {"torch", "lightning", "pytorch_lightning", "opentelemetry.sdk"}


def test_telemetry_never_imports_the_network() -> None:
    assert "liquid_train" not in _modules_after("from liquid_telemetry import Telemetry")


def test_callbacks_follow_the_lightning_that_the_program_uses() -> None:
    loaded = _modules_after("import pytorch_lightning\nfrom liquid_telemetry import Telemetry")
    assert "lightning.pytorch" not in loaded


def test_public_names() -> None:
    import liquid_telemetry
    import liquid_train

    assert set(dir(liquid_telemetry)) >= {
        "OpenTelemetrySpans",
        "PrometheusMetrics",
        "StructlogEvents",
        "Telemetry",
    }
    assert set(dir(liquid_train)) >= {
        "CfC",
        "CfCCell",
        "LTC",
        "LTCCell",
        "LiquidClassifier",
        "LiquidRegressor",
    }
    for module in (liquid_telemetry, liquid_train):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            _ = module.nonsense


def test_one_version() -> None:
    import liquid_telemetry
    import liquid_train

    assert liquid_telemetry.__version__ == liquid_train.__version__ == version("liquid-train")
