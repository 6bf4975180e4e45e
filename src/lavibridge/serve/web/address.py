"""The server's address and token, checked before anything heavy is loaded."""

import socket
from dataclasses import dataclass

from lavibridge.core.errors import RunError
from lavibridge.serve.web.guard import LOOPBACK_HOSTS

_LEAST_TOKEN = 16
"""Minimum number of characters of a token."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Host, port and access token of a server."""

    host: str = "127.0.0.1"
    port: int = 8765
    """0 chooses a free port."""
    token: str | None = None


def check_address(address: Address) -> None:
    """Raise RunError for an address without protection or a token that is easy to guess."""
    if address.token is None and address.host not in LOOPBACK_HOSTS:
        raise RunError(
            f"--host {address.host} gives other machines access: set a token ($LAVI_TOKEN or --token), or "
            "omit --host to serve this machine only"
        )
    if address.token is not None and (len(address.token) < _LEAST_TOKEN or not address.token.isascii()):
        raise RunError(
            f"the token needs at least {_LEAST_TOKEN} ASCII characters, found {len(address.token)}"
        )


def bind_address(address: Address) -> socket.socket:
    """Open a listening socket. Raises RunError if that fails."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=2048)
    except OSError as error:
        raise RunError(
            f"cannot listen on {address.host}:{address.port} ({error.strerror}): give another --port, or "
            "--port 0 for a free one"
        ) from None


def address_url(address: Address, bound: socket.socket) -> str:
    """Return the page's URL, with the token after #, which browsers do not send."""
    shown = "127.0.0.1" if address.host in ("0.0.0.0", "::") else address.host
    shown = f"[{shown}]" if ":" in shown else shown
    token = "" if address.token is None else f"#token={address.token}"
    return f"http://{shown}:{bound.getsockname()[1]}/{token}"
