"""Measures serving: images per second in batches and one at a time, and a thousand clients at once.

python benchmarks/serve.py                 both, written to benchmarks/results
python benchmarks/serve.py load            a thousand clients only, as JSON on stdout; or: throughput

throughput    mini-sd, 10 steps, guidance; 8 images eight at a time, one at a time, and by BridgePipeline
              one at a time, in turns; medians over the rounds of several processes, of wall time and of
              processor time, which excludes other programs on the machine (one thread)
load          a toy bridge in a separate `lavi serve` process, and 1,000 simultaneous requests
"""

import asyncio
import base64
import hashlib
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from record import record
from spread import PROCESSES, across, fresh

PICTURES, STEPS, ROUNDS = 8, 10, 2
CLIENTS, QUEUE = 1000, 64
PROMPT = "a red circle to the left of a blue square"


def throughput() -> dict[str, Any]:
    """Measure images per second in three ways, and compare the bits."""
    import torch

    from lavibridge import BridgePipeline
    from lavibridge.core.device import set_threads
    from lavibridge.serve.engine.image_generation import ImageGeneration, advance_generations
    from lavibridge.serve.engine.request import Request
    from lavibridge.serve.engine.served_model import ServedModel
    from lavibridge.serve.engine.thread_count import choose_thread_count

    every = set_threads()
    bridge = BridgePipeline.native("mini-sd", device="cpu").bridge
    model = ServedModel("mini-sd", bridge, 8)
    threads = choose_thread_count([model], 8)

    @torch.inference_mode()
    def serve(at_once: int) -> list[str]:
        found = []
        for start in range(0, PICTURES, at_once):
            drawings = [
                ImageGeneration(
                    Request(
                        model="mini-sd",
                        prompt=PROMPT,
                        negative_prompt="",
                        seed=seed,
                        num_inference_steps=STEPS,
                        guidance_scale=4.0,
                        quality="exact",
                        width=64,
                        height=64,
                    ),
                    model,
                )
                for seed in range(start, start + at_once)
            ]
            for _ in range(STEPS):
                advance_generations(drawings)
            found += [hashlib.sha256(drawing.picture().tobytes()).hexdigest() for drawing in drawings]
        return found

    def generate() -> list[str]:
        torch.set_num_threads(every)
        pictures = [
            BridgePipeline(bridge)(
                [PROMPT], num_inference_steps=STEPS, guidance_scale=4.0, seed=seed, batch_size=1
            ).images[0]
            for seed in range(PICTURES)
        ]
        torch.set_num_threads(threads)
        return [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures]

    ways: dict[str, Callable[[], list[str]]] = {
        "eight at a time": lambda: serve(8),
        "one at a time": lambda: serve(1),
        "BridgePipeline, all threads": generate,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    hashes = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start, spent = time.perf_counter(), time.process_time()
            hashes[name] = way()
            rates[name].append(PICTURES / (time.perf_counter() - start))
            costs[name].append((time.process_time() - spent) / PICTURES)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    cost = {name: statistics.median(each) for name, each in costs.items()}
    together = medians["eight at a time"]
    return {
        "threads": {"all": every, "chosen": threads},
        "load average": os.getloadavg()[0],
        "least rows": model.least_rows,
        "pictures": PICTURES,
        "steps": STEPS,
        "pictures a second": medians,
        "rounds": rates,
        "processor seconds a picture": cost,
        "rounds of processor seconds": costs,
        "eight at a time against one at a time": {
            "by the clock": together / medians["one at a time"],
            "by processor time": cost["one at a time"] / cost["eight at a time"],
        },
        "eight at a time against Bridge.generate": {
            "by the clock": together / medians["BridgePipeline, all threads"],
            "by processor time": cost["BridgePipeline, all threads"] / cost["eight at a time"],
        },
        "same bits together and alone": hashes["eight at a time"] == hashes["one at a time"],
    }


def load() -> dict[str, Any]:
    """Send a thousand requests at once, and report the responses and the server's cost."""
    from lavibridge import Bridge

    with tempfile.TemporaryDirectory() as folder:
        toy = {"source": "random"}
        Bridge.compose({"kind": "t5", **toy}, {"kind": "pixart", **toy}).save_pretrained(f"{folder}/toy")
        command = [str(Path(sys.executable).parent / "lavi"), "serve", f"{folder}/toy", "--port", "0"]
        server = subprocess.Popen(
            [*command, "--no-open", "--queue", str(QUEUE), "--max-steps", "1000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert server.stdout is not None
        try:
            url = server.stdout.readline().strip()
            found = asyncio.run(_waves(url))
            found["kill -9"] = _killed(url)
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(120)
        return {**found, "server left with": code}


async def _waves(url: str) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        memory, answers, seconds = [], Counter[str](), []
        for wave in range(3):
            start = time.perf_counter()
            found = await asyncio.gather(*(_ask(client, wave * CLIENTS + i) for i in range(CLIENTS)))
            seconds.append(time.perf_counter() - start)
            answers.update(found)
            memory.append((await _metrics(client))["process_resident_memory_bytes"] / 2**20)
        state = await _metrics(client)
    return {
        "clients at once": CLIENTS,
        "waves": len(seconds),
        "answers": dict(answers),
        "pictures drawn": int(state["lavi_pictures_total"]),
        "left in the queue": int(state["lavi_pictures_waiting"] + state["lavi_pictures_drawing"]),
        "seconds per wave": seconds,
        "server's MiB after each wave": memory,
    }


async def _ask(client: httpx.AsyncClient, seed: int) -> str:
    """One request; what came of it in a word."""
    body = {"prompt": "a red circle", "seed": seed, "num_inference_steps": 2, "size": "16x16"}
    try:
        answer = await client.post("/v1/images/generations", json=body)
    except httpx.HTTPError as error:
        return f"lost: {type(error).__name__}"
    if answer.status_code != 200:
        return str(answer.status_code)
    (data,) = answer.json()["data"]
    with Image.open(io.BytesIO(base64.b64decode(data["b64_json"]))) as picture:
        recipe = json.loads(str(picture.info["lavibridge"]))
    return "picture" if recipe["seed"] == seed else "another's picture"


async def _metrics(client: httpx.AsyncClient) -> dict[str, float]:
    return _read((await client.get("/metrics")).text)


def _read(text: str) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def _killed(url: str) -> dict[str, float]:
    """Kill a client during its request, and return seconds and steps until its place is free."""
    body = {"prompt": "a red circle", "num_inference_steps": 1000, "size": "16x16"}
    program = f"import httpx; httpx.post('{url}v1/images/generations', json={body!r}, timeout=300)"
    client = subprocess.Popen([sys.executable, "-c", program])
    state = _read(httpx.get(f"{url}metrics").text)
    while not state["lavi_pictures_drawing"]:
        state = _read(httpx.get(f"{url}metrics").text)
    client.kill()
    steps, start = state["lavi_steps_total"], time.perf_counter()
    while state["lavi_pictures_drawing"]:
        state = _read(httpx.get(f"{url}metrics").text)
    client.wait()
    return {"seconds": time.perf_counter() - start, "steps": state["lavi_steps_total"] - steps}


if __name__ == "__main__":
    if sys.argv[1:] == ["load"]:
        print(json.dumps(load()))
    elif sys.argv[1:] == ["throughput"]:
        print(json.dumps(throughput()))
    else:
        found = across([fresh(throughput) for _ in range(PROCESSES)])
        record("serve", {"throughput": found, "load": load()})
