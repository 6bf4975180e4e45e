"""Bounds what a client can hold before it is known: the number of connections, and the time of a request.

A connection beyond the limit closes at once. A connection whose request is incomplete closes after a fixed
time, however slowly its bytes arrive (slowloris).
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from lavibridge.serve.limits import Limits


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with a limit of connections, and a time limit for each request's headers and body."""

    def __init__(self, *, limits: Limits, most: int, **parts: Any) -> None:
        super().__init__(**parts)
        self.most = most
        """Maximum number of open connections."""
        self.request_seconds = limits.request_seconds
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or close it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
        else:
            self._set_deadline()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, and start or stop the clock of the request."""
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._set_deadline()
        else:
            self._clear_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._clear_deadline()
        super().connection_lost(exc)

    def _set_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.request_seconds, self.transport.abort)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
