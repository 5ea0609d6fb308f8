"""Servers that a test makes up, and some that are not what they are taken for."""

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(answers):
    """A server that answers each path with ``(status, body)`` or a function of the request that returns it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("Content-Length", 0))
            self.sent = self.rfile.read(length)
            answer = answers.get(self.path.partition("?")[0], (404, b"{}"))
            status, body = answer(self) if callable(answer) else answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def talking(talk):
    """A server that hands each connection to ``talk``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve():
            while not ended.is_set():
                connection, _ = listener.accept()
                with connection:
                    talk(connection, ended)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        ended.set()
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join()


def garbage(connection, _):
    connection.recv(1000)
    connection.sendall(b"220 mail.example.org ESMTP\r\n")


def tls(connection, _):
    connection.recv(1000)
    connection.sendall(b"\x15\x03\x03\x00\x02\x02\x46")  # the alert "protocol version"


def silence(connection, ended):
    connection.settimeout(0.05)
    while not ended.is_set():
        try:
            if not connection.recv(1000):
                return
        except OSError:
            continue


def drip(connection, ended):
    """One byte after another, each well within a timeout per byte; in the end an answer."""
    connection.recv(1000)
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(40):
            connection.sendall(b"x")
            ended.wait(0.05)
        connection.sendall(b"\r\n\r\n{}")
    except OSError:
        return
