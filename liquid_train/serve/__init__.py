"""`liquid-train serve`: a trained task over HTTP and WebSocket, under the telemetry of training."""
