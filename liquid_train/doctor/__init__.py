"""Checks of a machine and of the stack that watches it, for `liquid-train doctor`."""
