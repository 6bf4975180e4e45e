"""A chat completions API on this machine: real HTTP, with answers that a test scripts."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test/0123456789=abc"


@dataclass
class Answer:
    """A response: a status, a body and headers, after some seconds."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0


def completion(text: str | None, **more: Any) -> Answer:
    """A chat completion; ``more`` may have `refusal` and `finish_reason`."""
    message = {"role": "assistant", "content": text, "refusal": more.get("refusal")}
    choice = {"index": 0, "message": message, "finish_reason": more.get("finish_reason", "stop")}
    return Answer(body=json.dumps({"object": "chat.completion", "choices": [choice]}).encode())


def failure(status: int, message: str, **headers: str) -> Answer:
    """An error in OpenAI's form."""
    return Answer(status, json.dumps({"error": {"message": message}}).encode(), headers)


def revise(prompt: str) -> Answer:
    """Answer with the prompt and a few words more."""
    return completion(f"{prompt},\n on a plain  background")


class ChatServer:
    """What the server answers, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.endpoint = f"{url}/v1"
        self.answer: Callable[[str], Answer] = revise
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._lock, self._at_once = threading.Lock(), 0

    @property
    def prompts(self) -> list[str]:
        """The prompts of all requests."""
        return [request["messages"][1]["content"] for request in self.requests]

    def respond(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Record a request, and return the scripted answer."""
        if path != "/v1/chat/completions":
            return failure(404, f"no route {path}")
        request = json.loads(body)
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            answer = self.answer(request["messages"][1]["content"])
            time.sleep(answer.after)
        finally:
            with self._lock:
                self._at_once -= 1
        return answer


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """Serve on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = chat.respond(self.path, dict(self.headers.items()), body)
            try:
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(answer.body)
            except (BrokenPipeError, ConnectionResetError):  # the client timed out
                self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    chat = ChatServer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
