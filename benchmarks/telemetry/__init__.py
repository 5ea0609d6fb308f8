"""What observing a training loop costs; ``python -m benchmarks.telemetry --help``."""
