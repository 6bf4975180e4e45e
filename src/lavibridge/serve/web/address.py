"""Where the server is found and who may ask it: looked at before anything heavy is loaded."""

import socket
from dataclasses import dataclass

from lavibridge.core.errors import RunError
from lavibridge.serve.web.guard import LOOPBACK_HOSTS

_LEAST_TOKEN = 16
"""Characters of a token."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the server is found, and who may ask it."""

    host: str = "127.0.0.1"
    port: int = 8765
    """0: any that is free."""
    token: str | None = None


def check_address(address: Address) -> None:
    """RunError for an address that anybody could use, or a token that could be guessed."""
    if address.token is None and address.host not in LOOPBACK_HOSTS:
        raise RunError(
            f"binding {address.host} lets other machines in: set a token ($LAVI_TOKEN or --token), or leave "
            "--host out to serve this machine only"
        )
    if address.token is not None and (len(address.token) < _LEAST_TOKEN or not address.token.isascii()):
        raise RunError(f"a token has at least {_LEAST_TOKEN} ASCII characters, found {len(address.token)}")


def bind_address(address: Address) -> socket.socket:
    """A socket that listens; RunError where that cannot be."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=2048)
    except OSError as error:
        raise RunError(
            f"cannot listen on {address.host}:{address.port} ({error.strerror}): give another --port, or "
            "--port 0 for any that is free"
        ) from None


def address_url(address: Address, bound: socket.socket) -> str:
    """The page's URL; the token stands behind #, which browsers keep to themselves."""
    shown = "127.0.0.1" if address.host in ("0.0.0.0", "::") else address.host
    shown = f"[{shown}]" if ":" in shown else shown
    token = "" if address.token is None else f"#token={address.token}"
    return f"http://{shown}:{bound.getsockname()[1]}/{token}"
