"""A small HTTP server instead of an API server, with the answers of a test."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

from kubernetes import client

from autotuner.backends.kubernetes import Api


class FakeServer:
    """Answers requests by a function from (method, path, query) to (status, headers, body)."""

    def __init__(self, answer):
        self.requests = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                url = urlparse(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                requests.append((self.command, url.path, query, dict(self.headers), body))
                status, headers, text = answer(self.command, url.path, query)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(text)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 (as the base class has it)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def api(self, counts=None):
        configuration = client.Configuration()
        configuration.host = f"http://127.0.0.1:{self._server.server_address[1]}"
        configuration.api_key = {"authorization": "secret"}
        configuration.api_key_prefix = {"authorization": "Bearer"}
        return Api(configuration, None if counts is None else lambda verb, code: counts.append((verb, code)))

    def close(self):
        self._server.shutdown()
        self._server.server_close()
