"""Structured logs: records become JSON lines, and readable lines on a terminal."""
