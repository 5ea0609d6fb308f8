"""Trained tasks as programs that run without this package."""
