"""Drawing for many at once: the same bits as alone, cancelling, failing, and saying why."""

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
from lavibridge.generation.emphasis import read
from lavibridge.generation.sheet import encode_png
from lavibridge.serve.engine.canvas import Canvas, advance
from lavibridge.serve.engine.desk import Closing, Desk, Full
from lavibridge.serve.engine.job import Job, Picture
from lavibridge.serve.engine.painter import Painter
from lavibridge.serve.engine.rows import least_rows
from lavibridge.serve.engine.wish import Wish
from lavibridge.serve.engine.worker import Worker
from lavibridge.serve.limits import Limits

Compose = Callable[..., Bridge]
Eventually = Callable[[Callable[[], bool]], None]


def wish(number: int = 0, **changes: object) -> Wish:
    values = {
        "model": "first",
        "prompt": "a red circle",
        "negative_prompt": "",
        "seed": number,
        "steps": 2,
        "guidance": 4.0,
        "quality": "exact",
        "width": 16,
        "height": 16,
    }
    return Wish(**(values | changes))  # type: ignore[arg-type]


def mixed(count: int) -> list[Wish]:
    """Wishes of different lengths, seeds, steps and guidance."""
    chance = random.Random(1)
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
        wish(
            number,
            prompt=" ".join(words[: chance.randint(1, len(words))]),
            negative_prompt=chance.choice(["", "green"]),
            steps=chance.randint(1, 3),
            guidance=chance.choice([1.0, 3.0, 7.5]),
            quality=chance.choice(["exact", "fast"]),
        )
        for number in range(count)
    ]


@torch.inference_mode()
def draw(painter: Painter, wishes: list[Wish], at_once: int) -> list[str]:
    """The hash of each picture, so many drawn at once; new ones join as soon as others end."""
    waiting, drawing, found = list(enumerate(wishes)), {}, {}
    while waiting or drawing:
        while waiting and len(drawing) < at_once:
            number, each = waiting.pop(0)
            drawing[number] = Canvas(each, painter)
        advance(list(drawing.values()))
        for number, canvas in list(drawing.items()):
            if canvas.is_finished:
                found[number] = hashlib.sha256(canvas.picture().tobytes()).hexdigest()
                del drawing[number]
    return [found[number] for number in range(len(wishes))]


@pytest.mark.usefixtures("one_thread")  # on several, bits depend on the batch
def test_fifty_mixed_pictures_have_the_same_bits_alone_and_together(compose: Compose) -> None:
    painter = Painter("first", compose("t5", "sd"), 8)
    assert painter.least is not None
    wishes = mixed(50)
    alone = draw(painter, wishes, 1)
    assert len(set(alone)) == 50
    assert draw(painter, wishes, 8) == alone


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
    painter = Painter("first", compose(language, vision, connector), 4)
    wishes = mixed(8)
    assert draw(painter, wishes, 4) == draw(painter, wishes, 1)


@pytest.mark.parametrize("quality", ["exact", "high", "fast"])
def test_what_is_drawn_is_what_the_bridge_draws(compose: Compose, quality: str) -> None:
    bridge = compose("t5", "sd")
    painter = Painter("first", bridge, 4)
    (picture,) = bridge.generate(
        ["a red circle"], seed=3, steps=3, guidance=4.0, quality=quality, height=16, width=16
    )
    canvas = Canvas(wish(3, steps=3, quality=quality), painter)
    with torch.inference_mode():
        while not canvas.is_finished:
            advance([canvas])
            assert canvas.preview().size == (16, 16)
        found = canvas.picture()
    assert max(abs(a - b) for a, b in zip(found.tobytes(), picture.tobytes(), strict=True)) <= 1


def test_a_machine_whose_arithmetic_depends_on_the_batch_is_found_out(compose: Compose) -> None:
    painter = Painter("first", compose("t5", "pixart"), 4)
    vision = painter.bridge.vision
    assert least_rows(vision, painter.width, 8) == painter.least

    def leaks(module: object, args: object, output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (output[0] + 1e-6 * output[0].mean(0),)

    handle = vision.backbone.register_forward_hook(leaks)
    assert least_rows(vision, painter.width, 8) is None
    handle.remove()


def test_why_changes_no_picture_and_its_shares_add_up(painters: dict[str, Painter]) -> None:
    asked = {"prompt": "a (red:1.3) circle", "weights": True}
    plain, watched = wish(5, **asked), wish(5, **asked, is_explained=True)
    canvases = [Canvas(plain, painters["first"]), Canvas(watched, painters["first"])]
    with torch.inference_mode():
        while not canvases[0].is_finished:
            advance(canvases)
        assert canvases[0].picture().tobytes() == canvases[1].picture().tobytes()
        why = canvases[1].explain()
    assert canvases[0].explain() is None
    assert why is not None
    assert [each["word"] for each in why["maps"]] == ["a", "red", "circle", ""]
    assert sum(each["share"] for each in why["maps"]) == pytest.approx(1, abs=0.01)
    assert all(len(each["values"]) == why["height"] * why["width"] for each in why["maps"])
    assert all(max(each["values"]) == 255 for each in why["maps"])


def test_tokens_that_are_no_single_words_are_numbered(compose: Compose) -> None:
    painter = Painter("first", compose("t5", "pixart", "resampler"), 4)
    assert not painter.keeps_tokens
    canvas = Canvas(wish(1, steps=1, is_explained=True), painter)
    advance([canvas])
    why = canvas.explain()
    assert why is not None
    assert why["by"] == "token"


def test_weights_are_refused_where_nothing_reads_them(compose: Compose) -> None:
    painter = Painter("first", compose("llama", "pixart", "query"), 2)
    with pytest.raises(RecipeError, match="leave them out"):
        painter.check([read("a (red:1.2) circle", weights=True)], 16, 16)
    painter.check([read("a (red:1.2) circle", weights=False)], 16, 16)
    with pytest.raises(RecipeError, match="size: sides must be multiples"):
        painter.check([read("a red circle", weights=False)], 17, 16)


def job(*wishes: Wish) -> Job:
    return Job(pictures=[Picture(wish=each) for each in wishes])


def test_the_desk_takes_up_to_its_bound_whole_jobs_only() -> None:
    desk = Desk(Limits(queue=3))
    desk.submit(job(wish(), wish()))
    with pytest.raises(Full) as full:
        desk.submit(job(wish(), wish()))
    assert full.value.seconds >= 1
    desk.submit(job(wish()))
    assert desk.counts() == (3, 0)


def test_pictures_come_in_order_and_a_cancelled_one_frees_its_place() -> None:
    desk = Desk(Limits(queue=4, batch=2))
    first, second, third = (desk.submit(job(wish(number))) for number in range(3))
    assert [each for each, _ in desk.take()] == [first, second]
    desk.cancel(first)
    assert [each for each, _ in desk.take()] == [second, third]
    assert first.state == "cancelled"
    desk.cancel(first)
    assert desk.counts() == (0, 2)


def test_a_job_that_nobody_asks_for_is_cancelled(eventually: Eventually) -> None:
    desk = Desk(Limits(patience=0.001))
    lonely, watched = desk.submit(job(wish())), desk.submit(job(wish()))
    desk.listen(watched, lambda: None)
    eventually(lambda: [each for each, _ in desk.take()] == [watched])
    assert lonely.state == "cancelled"


def test_old_jobs_are_forgotten() -> None:
    desk = Desk(Limits(kept=2))
    ids = []
    for _ in range(5):
        made = desk.submit(job(wish()))
        ids.append(made.id)
        desk.cancel(made)
    assert desk.find(ids[0]) is None
    assert desk.find(ids[-1]) is not None


def test_closing_finishes_what_runs_and_rejects_the_rest(
    eventually: Eventually, painters: dict[str, Painter]
) -> None:
    desk = Desk(Limits(batch=1))
    worker = Worker(desk, painters, 1)
    running, waiting = desk.submit(job(wish(steps=50))), desk.submit(job(wish()))
    worker.start()
    eventually(lambda: running.pictures[0].step > 0)
    desk.close()
    worker.join(60.0)
    assert (running.state, waiting.state) == ("done", "rejected")
    assert waiting.error is not None
    with pytest.raises(Closing):
        desk.submit(job(wish()))


def test_a_failing_picture_takes_nobody_along(
    eventually: Eventually, painters: dict[str, Painter], capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(Limits())
    worker = Worker(desk, painters, 1)
    unknown, fine = desk.submit(job(wish(model="nobody"))), desk.submit(job(wish()))
    worker.start()
    eventually(lambda: unknown.is_over and fine.is_over)
    desk.close()
    worker.join(20.0)
    assert (unknown.state, fine.state) == ("failed", "done")
    assert "log says why" in str(unknown.error)
    assert "nobody" not in str(unknown.error)
    assert "Traceback" in capsys.readouterr().err


def test_a_picture_without_numbers_is_the_servers_fault(eventually: Eventually, compose: Compose) -> None:
    bridge = compose("t5", "pixart")
    bridge.vision.autoencoder.decoder.conv_out.bias.data[0] = float("nan")
    desk = Desk(Limits())
    worker = Worker(desk, {"first": Painter("first", bridge, 2)}, 1)
    asked = desk.submit(job(wish(model="first")))
    worker.start()
    eventually(lambda: asked.is_over)
    desk.close()
    worker.join(20.0)
    assert (asked.state, asked.is_own_fault) == ("failed", False)
    assert "the autoencoder makes of the latents are not finite" in str(asked.error)


def test_the_recipe_is_in_the_png_or_not(eventually: Eventually, painters: dict[str, Painter]) -> None:
    desk = Desk(Limits())
    worker = Worker(desk, painters, 1)
    signed, plain = job(wish(7)), job(wish(7))
    plain.is_signed = False
    for each in (signed, plain):
        desk.submit(each)
    worker.start()
    eventually(lambda: signed.is_over and plain.is_over)
    desk.close()
    texts = []
    for each in (signed, plain):
        png = each.pictures[0].file
        assert png is not None
        with Image.open(io.BytesIO(png)) as image:
            texts.append(image.text)  # type: ignore[attr-defined]
    assert json.loads(texts[0]["lavibridge"]) == wish(7).record()
    assert texts[1] == {}
    assert encode_png(Image.new("RGB", (2, 2)))[:4] == b"\x89PNG"


def test_features_of_a_prompt_are_kept_and_the_empty_one_always(
    painters: dict[str, Painter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavibridge.serve.engine.painter.KEPT", 3)
    painter = painters["second"]
    nothing, first = read("", weights=False), read("first", weights=False)
    empty, again = painter.read(nothing), painter.read(first)
    assert painter.read(first) is again
    assert painter.read(read("(first:2)", weights=True)) is not again
    for number in range(5):
        painter.read(read(f"prompt {number}", weights=False))
    assert painter.read(nothing) is empty
    assert painter.read(first) is not again
