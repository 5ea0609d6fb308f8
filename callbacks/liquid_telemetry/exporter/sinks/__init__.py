"""Where the exporter sends the metrics besides serving them: Pushgateway, textfile collector, OTLP over HTTP."""
