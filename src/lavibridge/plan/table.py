"""Formats a plan as plain text."""

from lavibridge.plan.devices import GIB
from lavibridge.plan.plan import TrainingPlan
from lavibridge.plan.search import SHARE

LEFT = 30


def plan_lines(plan: TrainingPlan) -> list[str]:
    """The lines of a plan: weights, memory, arithmetic, time, disk and configurations that fit."""
    found = _weights(plan)
    if plan.steps > 0:
        found += ["", *_memory(plan), "", *_work(plan), "", *_run(plan)]
    return [*found, *_alignment(plan), *_choices(plan)]


def _weights(plan: TrainingPlan) -> list[str]:
    rows = [f"{'weights':<{LEFT}}{'trained':>12}{'frozen':>12}{'memory':>12}"]
    for part in plan.parts:
        rows.append(
            f"{part.name:<{LEFT}}{millions(part.trained):>12}{millions(part.frozen):>12}{gib(part.bytes):>12}"
        )
    return rows


def _memory(plan: TrainingPlan) -> list[str]:
    memory = plan.memory
    verdict = "fits" if plan.fits else "does NOT fit"
    return [
        f"memory per device, batch {plan.batch}",
        _row("weights", gib(memory.weights)),
        _row("gradients", gib(memory.gradients)),
        _row("optimiser", gib(memory.optimiser)),
        _row("average (ema)", gib(memory.average)),
        _row("activations", gib(memory.activations))
        + f"   ({gib(plan.activations_checkpointed)} with training.checkpointing=true)",
        *(
            [_row("teacher", gib(memory.teacher)) + "   beyond the activations"]
            if plan.reading_seconds is not None
            else []
        ),
        _row("encoding images", gib(memory.encoding)) + "   (0 with training.cache.folder)",
        *([_row("caches in memory", gib(memory.caches))] if memory.caches else []),
        *([_row("program", gib(memory.program))] if memory.program else []),
        _row("total", gib(plan.memory_total))
        + f"   {verdict} in the {gib(plan.memory_of_device)} of {plan.device.name}",
        *_unloaded(plan),
        _drawing(plan),
    ]


def _unloaded(plan: TrainingPlan) -> list[str]:
    size = plan.memory_without_language_model
    if size is None:
        return []
    verdict = "fits" if size <= SHARE * plan.memory_of_device else "does NOT fit"
    return [
        _row("without language model", gib(size)) + f"   {verdict} once all captions are cached (lavi cache)"
    ]


def _drawing(plan: TrainingPlan) -> str:
    return (
        _row("generating one image", gib(plan.drawing))
        + f"   in total, with guidance ({gib(plan.drawing_offloaded)} with offload)"
    )


def _work(plan: TrainingPlan) -> list[str]:
    rows = [f"arithmetic of one pass, captions of {plan.tokens} tokens"]
    rows += [_row(name, _tflop(flops)) for name, flops in plan.flops.items() if flops]
    rows.append(_row("total", _tflop(sum(plan.flops.values()))) + f"   in {plan.operations:,} operations")
    return rows


def _run(plan: TrainingPlan) -> list[str]:
    how = "measured rates" if plan.device.is_measured else "assumed utilisation, see docs/guides/scale.md"
    rows = [
        f"time on {plan.devices} x {plan.device.name} ({how})",
        _row("one step", f"{plan.step_seconds:.3g} s")
        + (f"   {plan.accumulate} passes of {plan.batch}" if plan.accumulate > 1 else "")
        + ("   (bound by launching kernels: raise the batch)" if plan.is_bound_by_launching else ""),
        _row("images per second", f"{plan.images_per_second:.3g}"),
        _row("encoding one image", f"{plan.encoding_seconds:.2g} s"),
        *(
            [_row("own encoders, one caption", f"{plan.reading_seconds:.2g} s")]
            if plan.reading_seconds is not None
            else []
        ),
        _row(f"all {plan.steps:,} steps", f"{plan.hours:.3g} h")
        + ("" if plan.cost is None else f"   costs {plan.cost:,.2f}")
        + ("" if plan.epochs is None else f"   {plan.epochs:,.{0 if plan.epochs >= 10 else 2}f} epochs"),
    ]
    if plan.devices > 1:
        rows.append(_row("exchanged per step", gib(plan.gradient_bytes)) + "   of gradients, per device")
    count = plan.pictures or 1_000_000
    each = f"   for {count:,} images" + ("" if plan.pictures else " (set --pictures)")
    rows += ["", "caches on disk", _row("latents", gib(plan.latent_bytes * count)) + each]
    if plan.feature_bytes is None:
        rows.append(_row("language features", "none") + "   (the language model is trained)")
    else:
        rows.append(_row("language features", gib(plan.feature_bytes * count)) + "   one caption each")
    return rows


def _alignment(plan: TrainingPlan) -> list[str]:
    """Format the alignment before the first step."""
    alignment = plan.alignment
    if alignment is None:
        return []
    memory, each = alignment.memory, "both encoders, one caption"
    verdict = "fits" if alignment.memory_total <= SHARE * plan.memory_of_device else "does NOT fit"
    rows = [
        "",
        f"alignment (match {alignment.match}), {alignment.captions_per_step} captions per step",
    ]
    rows += [_row(part.name, gib(part.bytes)) + "   of weights" for part in alignment.parts]
    rows += [
        _row("weights, all", gib(memory.weights)),
        _row("gradients and optimiser", gib(memory.gradients + memory.optimiser + memory.average)),
        _row("activations", gib(memory.activations)),
        _row("latents and caches", gib(memory.caches)),
        *([_row("program", gib(memory.program))] if memory.program else []),
        _row("total", gib(alignment.memory_total))
        + f"   {verdict} in the {gib(plan.memory_of_device)} of {plan.device.name}",
        _row(each, f"{alignment.reading_seconds:.2g} s") + f"   {alignment.captions:,} captions",
        _row("one step", f"{alignment.step_seconds:.3g} s") + f"   {_tflop(alignment.flops)}",
        _row(f"all {alignment.steps:,} steps", f"{alignment.hours:.3g} h") + "   including the reading",
        *([] if plan.steps else [_drawing(plan)]),
    ]
    return rows


def _choices(plan: TrainingPlan) -> list[str]:
    if not plan.steps or (plan.fits and not plan.choices):
        return []
    if not plan.choices:
        return [
            "",
            f"no configuration fits in {gib(plan.memory_of_device)}: use a larger "
            "device, smaller images (data.size), a smaller model, or several devices with "
            "training.sharding=fsdp2",
        ]
    rows = ["", f"configurations that fit in {gib(plan.memory_of_device)}, fastest first"]
    for each in plan.choices:
        settings = " ".join(each.settings) or "(unchanged)"
        sizes = f"batch {each.batch} x {each.accumulate}"
        rows.append(f"  {sizes:<16}{gib(each.memory):>10}{each.seconds:>9.3g} s   {settings}")
    return rows


def _row(name: str, value: str) -> str:
    return f"  {name:<{LEFT - 2}}{value:>12}"


def gib(size: int) -> str:
    """Format bytes in GiB, or in MiB below 0.1 GiB."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def millions(count: int) -> str:
    """Format a number of weights."""
    if not count:
        return "-"
    if count < 1e5:
        return f"{count:,}"
    return f"{count / 1e6:,.2f} M" if count < 1e9 else f"{count / 1e9:,.2f} B"


def _tflop(flops: int) -> str:
    """Format floating-point operations."""
    return f"{flops / 1e12:.3g} TFLOP" if flops >= 1e11 else f"{flops / 1e9:.3g} GFLOP"
