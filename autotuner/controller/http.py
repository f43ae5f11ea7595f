"""A small HTTP server, and what it answers to probes and Prometheus: `/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Final, Self

import structlog
from prometheus_client import CONTENT_TYPE_LATEST

_PLAIN: Final = "text/plain; charset=utf-8"
_MAX_SHOWN: Final = 253
_SOCKET_SECONDS: Final = 10
_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d*)?")
"""A Host header: an IPv6 address in brackets, an IPv4 address or a name; then, it may be, a port."""

Answer = tuple[bool, str]
"""Whether the check passes, and a line that says what is wrong."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Response:
    """What is sent back for one path."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    kind: str = _PLAIN
    headers: Mapping[str, str] = field(default_factory=dict)


Respond = Callable[[str], Response]
"""Returns the response to a GET of a path, which has no query. Called from many threads."""


def probes(
    *, is_healthy: Callable[[], Answer], is_ready: Callable[[], Answer], metrics: Callable[[], bytes]
) -> Respond:
    """Return what answers `/healthz`, `/readyz` and `/metrics`."""

    def tell(answer: Answer) -> Response:
        good, text = answer
        return Response(f"{text}\n".encode(), HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)

    def respond(path: str) -> Response:
        match path:
            case "/healthz":
                return tell(is_healthy())
            case "/readyz":
                return tell(is_ready())
            case "/metrics":
                return Response(metrics(), kind=CONTENT_TYPE_LATEST)
            case _:
                return Response(b"/healthz, /readyz or /metrics\n", HTTPStatus.NOT_FOUND)

    return respond


class Server:
    """An HTTP server on its own thread. A context manager.

    The address `::` is every address of the machine, IPv4 and IPv6. With `names`, a request under another
    host name is refused; see `is_ours`.
    """

    def __init__(
        self, address: tuple[str, int], respond: Respond, names: Collection[str] | None = None
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = _SOCKET_SECONDS
            server_version = "autotuner"
            sys_version = ""

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                host = self.headers.get("Host", "")
                if names is not None and not is_ours(host, names):
                    self._send(_refusal(host))
                    return
                try:
                    response = respond(path)
                except Exception:  # noqa: BLE001 (the connection would be closed without a word)
                    _log.exception("request_failed", path=path)
                    said = b"an error: see the controller's log\n"
                    response = Response(said, HTTPStatus.INTERNAL_SERVER_ERROR)
                self._send(response)

            def _send(self, response: Response) -> None:
                self.send_response(response.status)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", response.kind)
                self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                self.wfile.write(response.body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (as the base class)
                """Keep probes, every few seconds, out of the log."""

        self._server = _listener(address, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on; the kernel chooses it if 0 was requested."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        """Start to serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def is_ours(host: str, names: Collection[str]) -> bool:
    """Return whether a Host header names this server: an IP address, `localhost`, or one of `names`.

    A web site can have its own name resolve to an address at which a browser reaches this server, such as
    the loopback address while `kubectl port-forward` runs, and then read the answers as its own (DNS
    rebinding). The browser still sends that name. An address or `localhost` cannot be rebound, and no browser
    leaves the header out.
    """
    found = _HOST.fullmatch(host.strip())
    if found is None:
        return False
    name = found[1].removesuffix(".").lower()
    if name in {"", "localhost", *names} or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _refusal(host: str) -> Response:
    said = (
        f"Host is {host[:_MAX_SHOWN]!r}: must be an IP address, localhost or one of pages_hosts, the names"
        " under which a proxy serves these pages (the chart's value pages.hosts)\n"
    )
    return Response(said.encode(), HTTPStatus.FORBIDDEN, headers={"X-Content-Type-Options": "nosniff"})


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # The base class looks the address up in DNS; a slow DNS would delay the start.
        TCPServer.server_bind(self)


class _ListenerOnIPv6(_Listener):
    address_family = socket.AF_INET6


def _listener(address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    host, port = address
    if host == "::" and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"  # noqa: S104 (the kernel has no IPv6)
    return (_ListenerOnIPv6 if ":" in host else _Listener)((host, port), handler)
