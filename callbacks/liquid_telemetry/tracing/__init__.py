"""OpenTelemetry spans: records become one trace of run, epochs, batches, validations and checkpoints."""
