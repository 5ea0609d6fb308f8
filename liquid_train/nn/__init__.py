"""Liquid networks: CfC and LTC, their one-step cells, plain or with an ``ncps`` wiring."""

from liquid_train.nn.cfc import CfC
from liquid_train.nn.cfc_cell import CfCCell
from liquid_train.nn.ltc import LTC
from liquid_train.nn.ltc_cell import LTCCell
from liquid_train.nn.memory_cell import MemoryCell
from liquid_train.nn.streaming import Stream
from liquid_train.nn.wired_cfc_cell import WiredCfCCell

__all__ = ["LTC", "CfC", "CfCCell", "LTCCell", "MemoryCell", "Stream", "WiredCfCCell"]
