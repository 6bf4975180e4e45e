"""A process that has imported everything and forks itself for each session, so that a session starts at once.

Reads JSON lines on stdin and answers each with a number on stdout:

    {"begin": [...], "environment": {...}, "output": path}   forks a child that runs `lavi ...`: its id
    {"end": id, "seconds": n}                                its exit code, below 0 for a signal

One that has not ended by then writes where each of its threads stands to its output, and is killed.

A session is thus a process with its own signals, limits and exit code, without seconds of imports.
"""

import faulthandler
import json
import os
import signal
import sys
import time
from typing import Any

import lavibridge.training.train  # noqa: F401 - what a session imports
from lavibridge.bridge import Bridge
from lavibridge.cli.main import main


def begin(arguments: list[str], environment: dict[str, str], output: str) -> int:
    """Fork a session."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for background jobs
    signal.signal(signal.SIGHUP, signal.SIG_IGN if "NOHUP" in environment else signal.SIG_DFL)
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    sys.argv = ["lavi", *arguments]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(child: int, seconds: float) -> int:
    """The exit code of a session."""
    late = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > late:
            os.kill(child, signal.SIGUSR2)
            time.sleep(1)
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)


def answer(asked: dict[str, Any]) -> int:
    """Do what a line asks for."""
    if "begin" in asked:
        return begin(asked["begin"], asked["environment"], asked["output"])
    return end(asked["end"], asked["seconds"])


def answer_stdin() -> None:
    """Serve until stdin ends."""
    # Both libraries import a model's file when it is first built. No thread is begun by that.
    small = {"rank": 4}
    Bridge.compose(
        {"kind": "llama", "source": "random"}, {"kind": "sd", "source": "random"}, "lavi", small, small
    )
    print("ready", flush=True)
    for line in sys.stdin:
        print(answer(json.loads(line)), flush=True)


if __name__ == "__main__":
    answer_stdin()
