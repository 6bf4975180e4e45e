"""Access control before any route: host names, tokens, and the type and size of bodies.

    Host, Origin      a page of another site cannot talk to a server on this machine (DNS rebinding, CSRF)
    token             compared in constant time; required except for the page's files and /health
    JSON only, size   a body must be JSON, and is not read beyond the limit

The lists name what is open; everything else needs the token.
"""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from lavibridge.serve.web.problems import problem_response

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
GuardedApp = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
_OPEN = ("/", "/health")
_OPEN_BELOW = "/page/"
"""Static files; everything else needs the token, if there is one."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that the metrics count by name."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """An ASGI middleware that checks every request."""

    def __init__(self, app: GuardedApp, *, host: str, token: str | None, body_bytes: int) -> None:
        self.app, self.token, self.body_bytes = app, token, body_bytes
        self.hosts = {*LOOPBACK_HOSTS, host} if token is None else None
        """Host names that the server accepts; None accepts any, since requests need a token."""
        self.answered: dict[tuple[str, str, int], int] = {}
        """Number of responses by method, route and status."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in own),
                ]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        try:
            answer = self.app if refusal is None else problem_response(*refusal)
            await answer(scope, self._bounded(receive), noting)
        finally:
            route = scope.get("route")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            key = (method, "other" if route is None else str(route.path), status)
            self.answered[key] = self.answered.get(key, 0) + 1

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return status and message for a request to refuse, else None."""
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            return 403, "this server accepts the host names 127.0.0.1 and localhost only: use one of them"
        origin = headers.get("origin")
        if origin is not None and not _is_same_site(origin, host):
            return 403, "requests from other sites are refused"
        if self.token is not None and not _is_open(scope["path"]) and not self._is_known(headers):
            return 401, "a token is needed: send the header 'Authorization: Bearer TOKEN'"
        if scope["method"] in ("POST", "PUT", "PATCH"):
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return 415, "send JSON, with the header 'Content-Type: application/json'"
            length = headers.get("content-length", "0")
            is_number = length.isascii() and length.isdigit() and len(length) <= 18
            if not is_number or int(length) > self.body_bytes:
                return 413, self._too_large()
        return None

    def _is_known(self, headers: dict[str, str]) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        expected = (self.token or "").encode()
        return hmac.compare_digest(token.strip().encode(), expected) and scheme.lower() == "bearer"

    def _bounded(self, receive: Receive) -> Receive:
        """Wrap a body so that reading it beyond the limit raises an error."""
        length = 0

        async def bounded() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > self.body_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return bounded

    def _too_large(self) -> str:
        return f"the body is longer than {self.body_bytes} bytes"


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_BELOW)


def _is_same_site(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:  # such as a bracket without its pair
        return False


def _name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
