"""Requests one chat completion after another from an OpenAI-compatible API, with bounded retries.

    POST ENDPOINT/chat/completions  {model, messages: [system: instruction, user: prompt], ...sampling}

    429, 408, 5xx, no connection, timeout, no JSON    repeat, after Retry-After or 1, 2, 4, ... seconds
    any other status                                  an error at once, with the server's message
    refusal, empty answer, cut-off answer             no error here: the caller decides

The key comes from an environment variable and goes into one header. What the server sends back may repeat the
key, so it is removed from everything that leaves this module. Redirects are not followed.

OpenAI API reference, "Create chat completion"; RFC 9110, section 10.2.3 (Retry-After).
"""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import httpx2

from lavibridge.core.errors import RemoteModelError
from lavibridge.core.unicode_text import is_valid_unicode

if TYPE_CHECKING:
    from lavibridge.language.parts.proxy import ProxySettings

LONGEST_WAIT: Final = 120.0
"""Longest wait in seconds that a server can request; a longer one is an error."""
FIRST_WAIT: Final = 1.0
"""Seconds before the first repetition; doubles each time."""
_REPEATED: Final = (408, 425, 429)
"""Client errors that pass by themselves."""


@dataclass(frozen=True)
class Completion:
    """What a remote model made of a prompt: a text, or the reason why there is none."""

    text: str | None
    refusal: str | None = None

    def record(self) -> dict[str, str]:
        """Return the field that is set."""
        return {"text": self.text} if self.text is not None else {"refusal": self.refusal or ""}


@dataclass(frozen=True)
class _Fault:
    """Why a request has to be repeated, and how long to wait first."""

    reason: str
    wait: float | None = None
    """Seconds that the server requests, or None."""


class ChatClient:
    """A context that requests completions from several threads."""

    def __init__(self, settings: "ProxySettings", stopped: Event, folder: Path) -> None:
        """``stopped`` ends waiting threads; errors name the ``folder`` of the revisions.

        Raises RemoteModelError if the key's variable is not set.
        """
        self.settings, self.stopped = settings, stopped
        self._remedy = (
            f"The revisions that arrived are in {folder}: call again to continue, or, to work without a "
            "network, copy that folder from a machine that has revised these prompts"
        )
        self._key = _key_of(settings)
        self._http = httpx2.Client(timeout=settings.timeout, headers=self._headers())

    def __enter__(self) -> "ChatClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def complete(self, prompt: str) -> Completion:
        """Return the completion of a prompt. Raises RemoteModelError after the last repetition."""
        found = self._attempt(prompt)
        for repeated in range(self.settings.retries):
            if isinstance(found, Completion):
                return found
            wait = FIRST_WAIT * 2**repeated if found.wait is None else found.wait
            if wait > LONGEST_WAIT:
                raise self._error(f"{found.reason}, and asks to wait {wait:,.0f} seconds")
            if self.stopped.wait(wait * random.uniform(1.0, 1.25)):
                raise self._error("the call was stopped")
            found = self._attempt(prompt)
        if isinstance(found, Completion):
            return found
        times = self.settings.retries + 1
        raise self._error(f"{found.reason} ({times} attempt{'s' * (times > 1)})")

    def _attempt(self, prompt: str) -> Completion | _Fault:
        settings = self.settings
        body = {
            **settings.sampling,
            "model": settings.model,
            "messages": [
                {"role": "system", "content": settings.instruction},
                {"role": "user", "content": prompt},
            ],
        }
        try:
            response = self._http.post(f"{settings.endpoint}/chat/completions", json=body)
        except httpx2.TimeoutException:
            return _Fault(f"there was no answer within {settings.timeout:g} seconds")
        except httpx2.TransportError as error:
            return _Fault(f"it cannot be reached ({self._safe(str(error)) or type(error).__name__})")
        status = response.status_code
        if status in _REPEATED or status >= 500:
            return _Fault(f"it answered {status}{self._message(response)}", _retry_after(response))
        if status != 200:
            raise self._error(f"it answered {status}{self._message(response)}{self._advice(status)}")
        return self._read(response)

    def _read(self, response: httpx2.Response) -> Completion | _Fault:
        """Read the first choice; a body of another form is a fault."""
        try:
            choice = response.json()["choices"][0]
            message = choice["message"]
            content, refusal, end = message["content"], message.get("refusal"), choice.get("finish_reason")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return _Fault("its answer is not a chat completion in JSON")
        if refusal or end == "content_filter":
            return Completion(None, f"it refused: {self._safe(str(refusal or 'content filter'))[:200]}")
        if end == "length":
            return Completion(None, "its answer exceeds the token limit")
        text = " ".join(self._safe(content).split()) if isinstance(content, str) else ""
        if not text or not is_valid_unicode(text):
            return Completion(None, "its answer is empty" if not text else "its answer is not valid Unicode")
        return Completion(text)

    def _headers(self) -> Mapping[str, str]:
        return {} if self._key is None else {"Authorization": f"Bearer {self._key}"}

    def _message(self, response: httpx2.Response) -> str:
        """Return the server's message, shortened and without the key."""
        try:
            found: Any = response.json()["error"]
            text = found["message"] if isinstance(found, dict) else found
        except (ValueError, KeyError, TypeError):
            return ""
        return f": {' '.join(self._safe(str(text)).split())[:200]}"

    def _advice(self, status: int) -> str:
        """Return what to do about a status."""
        settings = self.settings
        if status in (401, 403) and settings.key_variable is None:
            return "; set language.proxy.key_variable to the environment variable that has the key"
        if status in (401, 403):
            return f"; check the key in ${settings.key_variable}"
        if status == 404:
            return "; check language.proxy.endpoint and language.proxy.model"
        if 300 <= status < 400:
            return "; set language.proxy.endpoint to the URL that it redirects to"
        return "; check language.proxy.sampling"

    def _error(self, reason: str) -> RemoteModelError:
        return RemoteModelError(
            f"'{self.settings.model}' at {self.settings.endpoint}: {reason}. {self._remedy}"
        )

    def _safe(self, text: str) -> str:
        """Return a text without the key."""
        return text if self._key is None else text.replace(self._key, "[key]")


def _key_of(settings: "ProxySettings") -> str | None:
    """Read the key. Raises RemoteModelError if its variable is not set or holds more than one word."""
    if settings.key_variable is None:
        return None
    key = os.environ.get(settings.key_variable, "").strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise RemoteModelError(
            f"'{settings.model}' at {settings.endpoint} needs a key, but the environment variable "
            f"{settings.key_variable} is {'not a key' if key else 'not set'}: export it, and call again"
        )
    return key


def _retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds of Retry-After, which is a number or a date; None if it is neither."""
    found = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(found))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(found)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
