"""Container logs, and the part of a kubelet's HTTPS server that shows them to the API server.

The options mean what they mean to a kubelet (pkg/kubelet/kuberuntime/logs): first ``tailLines``
chooses where to start, then lines before ``sinceTime`` are skipped, and ``limitBytes`` cuts the
answer, timestamps included, wherever that is. ``follow`` ends with the container.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

_MESSAGE_LINES = 80
_MESSAGE_BYTES = 2048
_NANOSECONDS = 1_000_000_000
_PIECE_BYTES = 16 * 1024
_PIECES = re.compile(rb"[^\n]{0,%d}\n|[^\n]{1,%d}" % (_PIECE_BYTES - 1, _PIECE_BYTES))


@dataclass(frozen=True)
class LogOptions:
    """Which part of a log is asked for."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: float | None = None
    """Seconds since the epoch."""
    limit_bytes: int | None = None

    @classmethod
    def from_query(cls, query: str, now: float) -> LogOptions:
        """Read the query that the API server sends to a kubelet."""
        values = {name: given[-1] for name, given in parse_qs(query).items()}
        since = None
        if "sinceTime" in values:
            since = datetime.fromisoformat(values["sinceTime"]).timestamp()
        elif "sinceSeconds" in values:
            since = now - int(values["sinceSeconds"])
        return cls(
            follow=values.get("follow") == "true",
            previous=values.get("previous") == "true",
            timestamps=values.get("timestamps") == "true",
            tail_lines=int(values["tailLines"]) if "tailLines" in values else None,
            since=since,
            limit_bytes=int(values["limitBytes"]) if "limitBytes" in values else None,
        )


class ContainerLog:
    """What one run of a container has written. To be used on one event loop only.

    As in containerd, a line shows once it has ended, or in pieces of 16 KiB.
    """

    def __init__(self) -> None:
        self._lines: list[tuple[int, bytes]] = []  # nanoseconds since the epoch, line
        self._oldest = 0
        self._unfinished = b""
        self._is_over = False
        self._is_broken = False
        self._changed = asyncio.Event()

    def append(self, data: bytes) -> None:
        """Add output, stamped with the present time. A line may arrive in several pieces."""
        now = time.time_ns()
        for piece in _PIECES.findall(self._unfinished + data):
            self._lines.append((now, piece))
        self._unfinished = b""
        if self._lines and not _is_whole(self._lines[-1][1]):
            self._unfinished = self._lines.pop()[1]
        self._notify()

    def end(self) -> None:
        """Say that nothing more will come."""
        if self._unfinished:
            self._lines.append((time.time_ns(), self._unfinished))
            self._unfinished = b""
        self._is_over = True
        self._notify()

    def rotate(self, lines: int) -> None:
        """Cut off all but the newest lines, as a kubelet does with a long log; who follows it goes on."""
        self._oldest = max(self._oldest, len(self._lines) - lines)

    def break_off(self) -> None:
        """Fail those who follow: the node is lost, and its connections with it."""
        self._is_broken = True
        self._notify()

    def last_words(self) -> str:
        """Return what ``FallbackToLogsOnError`` shows: at most 80 lines and 2 kB of the end."""
        end = b"".join(line for _, line in self._lines[-_MESSAGE_LINES:])
        return end[-_MESSAGE_BYTES:].decode(errors="replace")

    async def read(self, options: LogOptions) -> AsyncIterator[bytes]:
        """Yield the part of the log that is asked for; with ``follow`` until the log ends."""
        position = self._oldest
        if options.tail_lines is not None:
            position = max(position, len(self._lines) - options.tail_lines)
        since = int((options.since or 0) * _NANOSECONDS)
        left = math.inf if options.limit_bytes is None else options.limit_bytes
        starts_a_line = True
        while left > 0:
            while position < len(self._lines):
                stamp, line = self._lines[position]
                position += 1
                if stamp < since:
                    continue
                prefix = _timestamp(stamp) if options.timestamps and starts_a_line else b""
                shown = prefix + line
                starts_a_line = line.endswith(b"\n")
                if len(shown) >= left:
                    yield shown[: int(left)]
                    return
                left -= len(shown)
                yield shown
            if self._is_broken:
                raise ConnectionAbortedError("the node is lost")
            if self._is_over or not options.follow:
                return
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class NoLogError(Exception):
    """There is no such log; the message is for the one who asked."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class LogServer:
    """Serves ``/containerLogs/<namespace>/<pod>/<container>`` over HTTPS, on loopback."""

    def __init__(self, find: Callable[[str, str, str, bool], ContainerLog]) -> None:
        """``find`` looks a log up by namespace, pod, container and whether the previous is meant.

        It may raise `NoLogError`, or `ConnectionError` where no kubelet would answer.
        """
        self._find = find
        self._server: asyncio.Server | None = None

    async def start(self, certificate: Path, key: Path) -> int:
        """Start serving and return the port."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = asyncio.create_task(self._answer(reader, writer))
        try:
            await answer
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        target = urlsplit(head.split(b" ", 2)[1].decode())
        options = LogOptions.from_query(target.query, time.time())
        try:
            log = self._find_by_path(target.path, options.previous)
        except NoLogError as error:
            _write_head(writer, error.status)
            _write_chunk(writer, str(error).encode())
        else:
            _write_head(writer, HTTPStatus.OK)
            hung_up = asyncio.create_task(reader.read(1))
            sending = asyncio.create_task(_send(log.read(options), writer))
            # A follower may hang up long before the next line would tell.
            await asyncio.wait({hung_up, sending}, return_when=asyncio.FIRST_COMPLETED)
            hung_up.cancel()
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
        _write_chunk(writer, b"")
        await writer.drain()

    def _find_by_path(self, path: str, previous: bool) -> ContainerLog:
        match [unquote(part) for part in path.split("/")]:
            case ["", "containerLogs", namespace, pod, container]:
                return self._find(namespace, pod, container, previous)
            case _:
                raise NoLogError(HTTPStatus.NOT_FOUND, f"no such path: {path}")


async def _send(pieces: AsyncIterator[bytes], writer: asyncio.StreamWriter) -> None:
    async for piece in pieces:
        if piece:  # an empty chunk would end the body
            _write_chunk(writer, piece)
        await writer.drain()


def _write_head(writer: asyncio.StreamWriter, status: HTTPStatus) -> None:
    writer.write(
        f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: text/plain\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    )


def _write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write one chunk of a body; the empty one ends it."""
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def _is_whole(piece: bytes) -> bool:
    return piece.endswith(b"\n") or len(piece) == _PIECE_BYTES


def _timestamp(nanoseconds: int) -> bytes:
    """Write a time as a kubelet does: RFC 3339 with all nine decimals."""
    seconds, rest = divmod(nanoseconds, _NANOSECONDS)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{rest:09d}Z ".encode()
