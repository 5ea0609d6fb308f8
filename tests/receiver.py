"""An OTLP receiver for metrics."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)


class Receiver:
    """An OTLP receiver that keeps what it gets."""

    def __init__(self):
        self.requests, self.headers, self.answer = [], [], (200, b"")
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                status, content = receiver.answer
                if status == 200:
                    receiver.headers.append({"path": self.path, **dict(self.headers)})
                    receiver.requests.append(ExportMetricsServiceRequest.FromString(body))
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def metrics(self, at=-1):
        (resource,) = self.requests[at].resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name.removeprefix("liquid_nn_"): metric for metric in scope.metrics}

    def points(self, name, at=-1):
        """Return the points of a metric as ``{labels: point}``; none when it is not there."""
        metric = self.metrics(at).get(name)
        if metric is None:
            return {}
        points = getattr(metric, metric.WhichOneof("data")).data_points
        found = {pairs(point.attributes): point for point in points}
        assert len(found) == len(points), f"{name} has a series twice"
        return found

    def values(self, name, labels):
        """Return what the deliveries said of one series, in order."""
        found = (self.points(name, at).get(labels) for at in range(len(self.requests)))
        return [point.as_double for point in found if point is not None and not point.flags]

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def pairs(attributes):
    return tuple(sorted((item.key, item.value.string_value) for item in attributes))
