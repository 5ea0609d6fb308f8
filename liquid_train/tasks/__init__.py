"""LightningModules: what a liquid network learns, and how."""

from liquid_train.tasks.classifier import LiquidClassifier
from liquid_train.tasks.regressor import LiquidRegressor

__all__ = ["LiquidClassifier", "LiquidRegressor"]
