"""A proxy: a closed or remote model revises prompts before the local language model reads them.

    prompt --remote model, by its API--> revised prompt --local language model--> features

Methods that read a model's layers exclude models behind an API. A proxy includes them: the remote model
writes, the local one reads. The first revision of a prompt is kept on disk (`revised_prompts.py`), so that a
prompt stays the same text in every epoch, process and session.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import cache
from threading import Event, Lock
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from lavibridge.core.config import HIDDEN_INPUT, Changeable, Config
from lavibridge.core.errors import PromptRefusedError
from lavibridge.core.identity import card_hash
from lavibridge.core.log import progress_bar
from lavibridge.language.parts.chat_completions import ChatClient, Completion
from lavibridge.language.parts.revised_prompts import RevisedPrompts

INSTRUCTION: Final = (
    "Rewrite the user's text as one plain description of an image, in at most 60 English words. Keep every "
    "object, number, colour and position that the text names, and add nothing that contradicts it. Reply "
    "with the description only."
)
"""The default instruction."""
_OWN_FIELDS: Final = ("model", "messages", "stream", "n")
"""Fields of a request that `sampling` cannot set."""
_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
"""Names of environment variables. Keys of some providers are identifiers, but none is in capitals only."""
_SECRET: Final = re.compile(r"api_?key|authorization|password|secret", re.IGNORECASE)


def _environment_variable(name: str) -> str:
    """Refuse anything but a variable's name, without repeating it: it may be the key itself."""
    if not _VARIABLE.fullmatch(name):
        raise PydanticCustomError(
            HIDDEN_INPUT,
            "this must be the name of an environment variable in capitals, such as OPENAI_API_KEY, and never "
            "the key itself: export the key under a name, and write the name here",
        )
    return name


def _endpoint(url: str) -> str:
    """Return a URL without its last slash. Refuses one that may contain a secret, without repeating it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("this must be the URL of an API, such as https://api.openai.com/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise PydanticCustomError(
            HIDDEN_INPUT,
            "the URL contains a user name, a password or a query, which recipes would store: leave them out, "
            "and name an environment variable in key_variable",
        )
    return url.rstrip("/")


class ProxySettings(Config):
    """Which remote model revises prompts, and how."""

    endpoint: Annotated[str, AfterValidator(_endpoint)]
    """URL of an API with OpenAI's chat completions, up to `/chat/completions`, such as
    https://api.openai.com/v1 or http://localhost:11434/v1."""
    model: Annotated[str, Field(min_length=1)]
    """The remote model's name at this endpoint."""
    instruction: str = INSTRUCTION
    """What the remote model does with a prompt, as its system message."""
    sampling: Mapping[str, Any] = Field(default_factory=dict)
    """Fields that every request has in addition, such as {temperature: 0, max_completion_tokens: 200}."""
    key_variable: Changeable[Annotated[str, AfterValidator(_environment_variable)] | None] = None
    """The environment variable with the API key, such as OPENAI_API_KEY; None sends no key. The key itself is
    never stored."""
    on_refusal: Literal["error", "prompt"] = "error"
    """What to do if the remote model refuses a prompt, answers nothing, or exceeds its token limit: stop, or
    read the prompt as it is."""
    timeout: Changeable[Annotated[float, Field(gt=0)]] = 60.0
    """Seconds to wait for an answer."""
    retries: Changeable[Annotated[int, Field(ge=0)]] = 4
    """How often to repeat a request that the server did not answer properly."""
    concurrency: Changeable[Annotated[int, Field(ge=1, le=256)]] = 8
    """Requests at a time."""

    @field_validator("sampling")
    @classmethod
    def _check_sampling(cls, sampling: Mapping[str, Any]) -> Mapping[str, Any]:
        if any(map(_SECRET.search, sampling)):
            raise PydanticCustomError(
                HIDDEN_INPUT,
                "this must not contain a secret, which recipes would store: name an environment variable in "
                "key_variable",
            )
        own = [name for name in _OWN_FIELDS if name in sampling]
        if own:
            raise ValueError(f"{own[0]} is set by the proxy itself: leave it out")
        return sampling

    def card(self) -> dict[str, Any]:
        """Return what a revised prompt depends on: not the key, nor how requests are repeated."""
        return self.model_dump(mode="json", include={"endpoint", "model", "instruction", "sampling"})

    def identity(self) -> str:
        """Return a short hash of what the local model reads: the card, and what follows a refusal."""
        return card_hash([self.card(), self.on_refusal])


class Proxy:
    """Revises prompts with a remote model; keeps each revision."""

    def __init__(self, settings: ProxySettings) -> None:
        self.settings = settings
        self._kept = RevisedPrompts(settings.model, settings.card())
        self._lock = Lock()

    def revise(self, prompts: Sequence[str]) -> list[str]:
        """Return each prompt's revision; the empty prompt, which guidance needs, stays empty.

        Requests what is not kept yet, `concurrency` prompts at a time, and keeps each answer as it arrives,
        so that an interrupted call continues. Threads may call it side by side. Raises RemoteModelError if
        the remote model cannot be reached, or refuses a prompt and `on_refusal` is error.
        """
        distinct = dict.fromkeys(prompt for prompt in prompts if prompt.strip())
        if self._missing(distinct):
            with self._lock:
                self._kept.read_new()  # another process may have requested some
            missing = self._missing(distinct)
            if missing:
                self._request(missing)
        return [prompt if prompt not in distinct else self._revision(prompt) or prompt for prompt in prompts]

    def _missing(self, prompts: Iterable[str]) -> list[str]:
        return [prompt for prompt in prompts if self._revision(prompt) is None]

    def _revision(self, prompt: str) -> str | None:
        """Return the kept revision; the prompt itself if it was refused and that is allowed."""
        kept = self._kept.get(prompt)
        if kept is None:
            return None
        if kept.text is None:
            return prompt if self.settings.on_refusal == "prompt" else None
        return kept.text

    def _request(self, prompts: Sequence[str]) -> None:
        """Request revisions concurrently, and keep them as they arrive, also those that arrive after an
        error."""
        stopped = Event()
        with (
            ChatClient(self.settings, stopped, self._kept.folder) as client,
            ThreadPoolExecutor(self.settings.concurrency) as pool,
            progress_bar("prompts") as bar,
        ):
            task = bar.add_task(f"revising by {self.settings.model}", total=len(prompts), status="")
            requested = {pool.submit(client.complete, prompt): prompt for prompt in prompts}
            try:
                for done in as_completed(requested):
                    self._keep(requested.pop(done), done.result())
                    bar.advance(task)
            except BaseException:
                stopped.set()
                pool.shutdown(cancel_futures=True)
                for prompt, completion in _completed(requested):
                    if completion.refusal is None:
                        self._keep(prompt, completion)
                raise

    def _keep(self, prompt: str, completion: Completion) -> None:
        if completion.refusal is not None and self.settings.on_refusal == "error":
            raise PromptRefusedError(
                f"'{self.settings.model}' did not revise the prompt '{prompt[:80]}': {completion.refusal}. "
                "Change the prompt or language.proxy.instruction, or set language.proxy.on_refusal=prompt to "
                "read such prompts as they are"
            )
        with self._lock:
            self._kept.add(prompt, completion)


def _completed(requested: Mapping[Future[Completion], str]) -> Iterator[tuple[str, Completion]]:
    """Yield the answers that arrived before a call was stopped."""
    for future, prompt in requested.items():
        if not future.cancelled() and future.exception() is None:
            yield prompt, future.result()


@cache
def _proxy(settings: str) -> Proxy:
    return Proxy(ProxySettings.model_validate_json(settings))


def revise_prompts(settings: ProxySettings, prompts: Sequence[str]) -> list[str]:
    """Return each prompt's revision; models with the same settings share what they keep.

    Raises RemoteModelError as `Proxy.revise` does.
    """
    return _proxy(settings.model_dump_json()).revise(prompts)
