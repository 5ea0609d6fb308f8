"""Prometheus metrics: records become values of the catalogue's families."""
