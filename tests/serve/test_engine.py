"""Drawing for many at once: the same bits as alone, cancelling, failing, and attention maps."""

import hashlib
import io
import json
import random
from collections.abc import Callable

import pytest
import torch
from PIL import Image

from lavibridge.bridge import Bridge
from lavibridge.core.errors import RecipeError
from lavibridge.generation.emphasis import read_emphasis
from lavibridge.generation.image_files import encode_png
from lavibridge.serve.engine.image_generation import ImageGeneration, advance_generations
from lavibridge.serve.engine.job import Job, JobImage
from lavibridge.serve.engine.least_rows import find_least_rows
from lavibridge.serve.engine.model_pool import ModelPool
from lavibridge.serve.engine.queue import Queue, QueueFull, ServerClosing
from lavibridge.serve.engine.request import Request
from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.engine.worker import Worker
from lavibridge.serve.limits import Limits

Compose = Callable[..., Bridge]
Eventually = Callable[[Callable[[], bool]], None]


def request(number: int = 0, **changes: object) -> Request:
    values = {
        "model": "first",
        "prompt": "a red circle",
        "negative_prompt": "",
        "seed": number,
        "num_inference_steps": 2,
        "guidance_scale": 4.0,
        "quality": "exact",
        "width": 16,
        "height": 16,
    }
    return Request(**(values | changes))  # type: ignore[arg-type]


def mixed(count: int) -> list[Request]:
    """Requests of different lengths, seeds, steps and guidance."""
    rng = random.Random(1)
    words = (
        "a",
        "red",
        "circle",
        "left",
        "of",
        "two",
        "large",
        "blue",
        "striped",
        "squares",
        "and",
        "no",
        "star",
    )
    return [
        request(
            number,
            prompt=" ".join(words[: rng.randint(1, len(words))]),
            negative_prompt=rng.choice(["", "green"]),
            num_inference_steps=rng.randint(1, 3),
            guidance_scale=rng.choice([1.0, 3.0, 7.5]),
            quality=rng.choice(["exact", "fast"]),
        )
        for number in range(count)
    ]


@torch.inference_mode()
def draw(model: ServedModel, requests: list[Request], at_once: int) -> list[str]:
    """The hash of each picture, so many drawn at once; new ones join as soon as others end."""
    waiting, current, hashes = list(enumerate(requests)), dict[int, ImageGeneration](), dict[int, str]()
    while waiting or current:
        while waiting and len(current) < at_once:
            number, each = waiting.pop(0)
            current[number] = ImageGeneration(each, model)
        advance_generations(list(current.values()))
        for number, drawing in list(current.items()):
            if drawing.is_finished:
                hashes[number] = hashlib.sha256(drawing.picture().tobytes()).hexdigest()
                del current[number]
    return [hashes[number] for number in range(len(requests))]


@pytest.mark.usefixtures("one_thread")  # on several, bits depend on the batch
def test_fifty_mixed_pictures_have_the_same_bits_alone_and_together(compose: Compose) -> None:
    model = ServedModel("first", compose("t5", "sd"), 8)
    assert model.least_rows is not None
    to_requests = mixed(50)
    alone = draw(model, to_requests, 1)
    assert len(set(alone)) == 50
    assert draw(model, to_requests, 8) == alone


@pytest.mark.parametrize(
    ("language", "vision", "connector"),
    [
        ("llama", "pixart", "ella"),  # aware of time
        ("llama", "pixart", "llmdiff"),  # speaks to single layers
        ("t5", "sd3", "lavi"),  # no mask, a pooled vector, a flow
    ],
)
def test_other_kinds_of_bridges_keep_their_bits_too(
    compose: Compose, language: str, vision: str, connector: str
) -> None:
    model = ServedModel("first", compose(language, vision, connector), 4)
    to_requests = mixed(8)
    assert draw(model, to_requests, 4) == draw(model, to_requests, 1)


def test_a_machine_whose_arithmetic_depends_on_the_batch_is_found_out(compose: Compose) -> None:
    model = ServedModel("first", compose("t5", "pixart"), 4)
    vision = model.bridge.vision
    assert find_least_rows(vision, model.width, 8) == model.least_rows

    def leaks(module: object, args: object, output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (output[0] + 1e-6 * output[0].mean(0),)

    handle = vision.backbone.register_forward_hook(leaks)
    assert find_least_rows(vision, model.width, 8) is None
    handle.remove()


def test_attention_maps_change_no_picture_and_their_shares_add_up(models: dict[str, ServedModel]) -> None:
    values = {"prompt": "a (red:1.3) circle", "prompt_weighting": True}
    plain, watched = request(5, **values), request(5, **values, has_attention_maps=True)
    drawings = [ImageGeneration(plain, models["first"]), ImageGeneration(watched, models["first"])]
    with torch.inference_mode():
        while not drawings[0].is_finished:
            advance_generations(drawings)
        assert drawings[0].picture().tobytes() == drawings[1].picture().tobytes()
        maps = drawings[1].attention_maps()
    assert drawings[0].attention_maps() is None
    assert maps is not None
    assert [each["word"] for each in maps["maps"]] == ["a", "red", "circle", ""]
    assert sum(each["share"] for each in maps["maps"]) == pytest.approx(1, abs=0.01)
    assert all(len(each["values"]) == maps["height"] * maps["width"] for each in maps["maps"])
    assert all(max(each["values"]) == 255 for each in maps["maps"])


def test_tokens_that_are_no_single_words_are_numbered(compose: Compose) -> None:
    model = ServedModel("first", compose("t5", "pixart", "resampler"), 4)
    assert not model.keeps_tokens
    drawing = ImageGeneration(request(1, num_inference_steps=1, has_attention_maps=True), model)
    advance_generations([drawing])
    maps = drawing.attention_maps()
    assert maps is not None
    assert maps["by"] == "token"


def test_weights_are_refused_where_nothing_reads_them(compose: Compose) -> None:
    model = ServedModel("first", compose("llama", "pixart", "query"), 2)
    with pytest.raises(RecipeError, match="remove the weights"):
        model.check([read_emphasis("a (red:1.2) circle", weights=True)], 16, 16)
    model.check([read_emphasis("a (red:1.2) circle", weights=False)], 16, 16)
    with pytest.raises(RecipeError, match="size: height and width must be multiples"):
        model.check([read_emphasis("a red circle", weights=False)], 17, 16)


def job(*to_requests: Request) -> Job:
    return Job(pictures=[JobImage(request=each) for each in to_requests])


def test_the_queue_takes_up_to_its_bound_whole_jobs_only() -> None:
    queue = Queue(Limits(queue=3))
    queue.submit(job(request(), request()))
    with pytest.raises(QueueFull) as full:
        queue.submit(job(request(), request()))
    assert full.value.seconds >= 1
    queue.submit(job(request()))
    assert queue.counts() == (3, 0)


def test_jobs_take_turns_and_a_cancelled_one_frees_its_place() -> None:
    queue = Queue(Limits(queue=4, batch_size=2))
    first, second, third = (queue.submit(job(request(number))) for number in range(3))
    assert [each for each, _ in queue.take()] == [first, second]
    assert [each for each, _ in queue.take()] == [third, first]
    queue.cancel(first)
    assert [each for each, _ in queue.take()] == [second, third]
    assert first.state == "cancelled"
    queue.cancel(first)
    assert queue.counts() == (0, 2)


def test_each_job_gets_a_place_before_any_gets_a_second_one() -> None:
    queue = Queue(Limits(queue=16, batch_size=4))
    large, small = queue.submit(job(*(request(i) for i in range(8)))), queue.submit(job(request()))
    other_size = queue.submit(job(request(width=32), request(width=32)))
    places = queue.take()
    assert [each for each, _ in places] == [large, small, large, large]
    assert [image for each, image in places if each is large] == large.pictures[:3]
    assert [each for each, _ in queue.take()] == [other_size, other_size]


def test_jobs_of_few_models_are_in_progress_at_a_time() -> None:
    """A begun image keeps its model in memory."""
    queue = Queue(Limits(pairs=2))
    jobs = [queue.submit(job(request(model=name))) for name in ("a", "b", "c")]
    assert {queue.take()[0][0].id for _ in range(6)} == {jobs[0].id, jobs[1].id}
    queue.cancel(jobs[0])
    assert {queue.take()[0][0].id for _ in range(6)} == {jobs[1].id, jobs[2].id}


@pytest.mark.usefixtures("one_thread")  # on several, bits depend on the batch
def test_a_short_job_behind_long_ones_waits_for_steps_and_no_picture_changes(
    eventually: Eventually, models: dict[str, ServedModel]
) -> None:
    queue = Queue(Limits(batch_size=4))
    worker = Worker(queue, ModelPool(models), 1)
    long = [
        queue.submit(job(*(request(9 * i + j, num_inference_steps=40) for j in range(4)))) for i in range(4)
    ]
    worker.start()
    eventually(lambda: worker.steps > 0)
    before, short = worker.steps, queue.submit(job(request(99, num_inference_steps=1)))
    eventually(lambda: short.is_over)
    assert short.state == "done"
    assert (
        worker.steps - before <= 4
    )  # one in progress, one of the others' turn, its own, and one begun since
    assert not any(each.is_over for each in long)
    for each in long[1:]:
        queue.cancel(each)
    eventually(lambda: long[0].is_over)
    queue.close()
    worker.join(20.0)
    drawn = [image for each in (long[0], short) for image in each.pictures]
    for image, alone in zip(drawn, draw(models["first"], [each.request for each in drawn], 1), strict=True):
        with Image.open(io.BytesIO(image.file or b"")) as picture:
            assert hashlib.sha256(picture.tobytes()).hexdigest() == alone


def test_the_expected_time_counts_other_jobs_up_to_ones_own_work() -> None:
    queue = Queue(Limits())
    short, long = (
        queue.submit(job(request(num_inference_steps=2))),
        queue.submit(job(request(num_inference_steps=50), request(num_inference_steps=50))),
    )
    assert queue.describe(short)["expected_seconds"] is None
    queue.measured(seconds=3.0, pixel_steps=16 * 16)  # three seconds a step
    assert queue.expected_seconds(short) == 2 * 2 * 3
    assert queue.expected_seconds(long) == (100 + 2) * 3
    queue.cancel(long)
    assert queue.expected_seconds(short) == 2 * 3
    assert queue.expected_seconds(long) is None


def test_a_job_that_nobody_asks_for_is_cancelled(eventually: Eventually) -> None:
    queue = Queue(Limits(patience=0.001))
    lonely, watched = queue.submit(job(request())), queue.submit(job(request()))
    queue.listen(watched, lambda: None)
    eventually(lambda: [each for each, _ in queue.take()] == [watched])
    assert lonely.state == "cancelled"


def test_old_jobs_are_forgotten() -> None:
    queue = Queue(Limits(kept=2))
    ids = []
    for _ in range(5):
        made = queue.submit(job(request()))
        ids.append(made.id)
        queue.cancel(made)
    assert queue.find(ids[0]) is None
    assert queue.find(ids[-1]) is not None


def test_closing_finishes_what_runs_and_rejects_the_rest(
    eventually: Eventually, models: dict[str, ServedModel]
) -> None:
    queue = Queue(Limits(batch_size=1))
    worker = Worker(queue, ModelPool(models), 1)
    running, waiting = queue.submit(job(request(num_inference_steps=50))), queue.submit(job(request()))
    worker.start()
    eventually(lambda: running.pictures[0].step > 0)
    queue.close()
    worker.join(60.0)
    assert (running.state, waiting.state) == ("done", "rejected")
    assert waiting.error is not None
    with pytest.raises(ServerClosing):
        queue.submit(job(request()))


def test_a_failing_picture_takes_nobody_along(
    eventually: Eventually, models: dict[str, ServedModel], capsys: pytest.CaptureFixture[str]
) -> None:
    queue = Queue(Limits())
    worker = Worker(queue, ModelPool(models), 1)
    unknown, fine = queue.submit(job(request(model="nobody"))), queue.submit(job(request()))
    worker.start()
    eventually(lambda: unknown.is_over and fine.is_over)
    queue.close()
    worker.join(20.0)
    assert (unknown.state, fine.state) == ("failed", "done")
    assert "log has the traceback" in str(unknown.error)
    assert "nobody" not in str(unknown.error)
    assert "Traceback" in capsys.readouterr().err


def test_a_picture_without_numbers_is_the_servers_fault(eventually: Eventually, compose: Compose) -> None:
    bridge = compose("t5", "pixart")
    bridge.vision.autoencoder.decoder.conv_out.bias.data[0] = float("nan")
    queue = Queue(Limits())
    worker = Worker(queue, ModelPool({"first": ServedModel("first", bridge, 2)}), 1)
    body = queue.submit(job(request(model="first")))
    worker.start()
    eventually(lambda: body.is_over)
    queue.close()
    worker.join(20.0)
    assert (body.state, body.is_own_fault) == ("failed", False)
    assert "the autoencoder decodes from the latents are not finite" in str(body.error)


def test_the_recipe_is_in_the_png_or_not(eventually: Eventually, models: dict[str, ServedModel]) -> None:
    queue = Queue(Limits())
    worker = Worker(queue, ModelPool(models), 1)
    signed, plain = job(request(7)), job(request(7))
    plain.embed_recipe = False
    for each in (signed, plain):
        queue.submit(each)
    worker.start()
    eventually(lambda: signed.is_over and plain.is_over)
    queue.close()
    texts = []
    for each in (signed, plain):
        png = each.pictures[0].file
        assert png is not None
        with Image.open(io.BytesIO(png)) as image:
            texts.append(image.text)  # type: ignore[attr-defined]
    assert json.loads(texts[0]["lavibridge"]) == request(7).record()
    assert texts[1] == {}
    assert encode_png(Image.new("RGB", (2, 2)))[:4] == b"\x89PNG"


def test_features_of_a_prompt_are_kept_and_the_empty_one_always(
    models: dict[str, ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavibridge.serve.engine.served_model._KEPT", 3)
    model = models["second"]
    nothing, first = read_emphasis("", weights=False), read_emphasis("first", weights=False)
    empty, again = model.encode(nothing), model.encode(first)
    assert model.encode(first) is again
    assert model.encode(read_emphasis("(first:2)", weights=True)) is not again
    for number in range(5):
        model.encode(read_emphasis(f"prompt {number}", weights=False))
    assert model.encode(nothing) is empty
    assert model.encode(first) is not again
