"""The launcher: runs any training command as its parent, and sees to it that its end is counted and scraped.

It is fit to be a container's first process. Standard library only; the exporter is a process beside it.
"""

from liquid_telemetry.launcher.launch import LINGER, launch

__all__ = ["LINGER", "launch"]
