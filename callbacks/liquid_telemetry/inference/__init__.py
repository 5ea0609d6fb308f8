"""Telemetry of inference outside a Trainer: a span, a duration and a count for each request."""
