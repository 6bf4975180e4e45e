"""`lavi doctor`: checks whether lavibridge can run on this machine, and suggests remedies."""

import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import typer

from lavibridge.core import thread_spinning

VERSION_FLOORS = {
    "torch": ("2.10", "CVE-2026-24747"),
    "transformers": ("5.3", "CVE-2026-4372: a model's config.json alone could run code"),
    "diffusers": ("0.40", "CVE-2026-44513, and the version that this package is built on"),
    "pillow": ("12", "safe reading of pictures"),
}
"""Oldest versions that load third-party models safely, and the reasons."""

_OTHERS = (
    "peft",
    "accelerate",
    "safetensors",
    "huggingface-hub",
    "pydantic",
    "numpy",
    "pyarrow",
    "jaxtyping",
)


@dataclass(frozen=True, kw_only=True)
class _Check:
    """One check; `state` is ok, note (for information) or bad (must change)."""

    state: str
    subject: str
    result: str


def doctor() -> None:
    """Check whether lavibridge can run on this machine; exit with 1 if not.

    \b
    lavi doctor

    Checks library versions against their security floors, the device, threads, memory, the shipped and
    packaged models, and the network.
    """
    findings = [
        *_versions(),
        _torchvision(),
        _python(),
        *_machine(),
        *_models(),
        *_packaged_models(),
        _network(),
    ]
    width = max(len(each.subject) for each in findings)
    for each in findings:
        print(f"{each.state:<5} {each.subject:<{width}}  {each.result}")
    bad = sum(each.state == "bad" for each in findings)
    print(f"\n{bad} to fix" if bad else "\nAll is well.")
    raise typer.Exit(1 if bad else 0)


def is_older_version(version: str, floor: str) -> bool:
    """Whether `version` is older than `floor`; ignores build suffixes such as +cpu."""
    numbers = [
        tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])) for text in (version, floor)
    ]
    return numbers[0] < numbers[1]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _versions() -> list[_Check]:
    findings = []
    for name, (floor, reason) in VERSION_FLOORS.items():
        found = _installed(name)
        if found is None or is_older_version(found, floor):
            advice = f"{found or 'missing'}; needs at least {floor} ({reason}): pip install '{name}>={floor}'"
            findings.append(_Check(state="bad", subject=name, result=advice))
        else:
            findings.append(_Check(state="ok", subject=name, result=f"{found} (at least {floor})"))
    missing = [name for name in _OTHERS if _installed(name) is None]
    if missing:
        findings.append(
            _Check(state="bad", subject="others", result=f"missing: pip install {' '.join(missing)}")
        )
    return findings


def _torchvision() -> _Check:
    if find_spec("torchvision") is None:
        return _Check(state="ok", subject="torchvision", result="absent, as it should be")
    advice = "installed, but not used; with a CPU build of torch it breaks imports: pip uninstall torchvision"
    return _Check(state="note", subject="torchvision", result=advice)


def _python() -> _Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return _Check(state="ok" if sys.version_info >= (3, 11) else "bad", subject="python", result=found)


def _waiting() -> _Check:
    """Check how threads wait for each other, which affects their speed on a busy machine."""
    chosen = [f"{name}={os.environ[name]}" for name in thread_spinning.SPIN_VARIABLES if name in os.environ]
    if chosen == [f"GOMP_SPINCOUNT={thread_spinning.SPIN_COUNT}"]:
        advice = "this command sets it; in your own Python program, set it before you import torch"
        return _Check(state="ok", subject="waiting", result=f"{chosen[0]} ({advice})")
    advice = (
        "on a busy machine two threads may be many times slower; "
        f"GOMP_SPINCOUNT={thread_spinning.SPIN_COUNT} avoids it"
    )
    return _Check(state="note", subject="waiting", result=f"{', '.join(chosen)}: {advice}")


def _machine() -> list[_Check]:
    import torch

    from lavibridge.core.device import pick_device, set_threads

    threads, device = set_threads(), pick_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    tensor = torch.arange(4.0, device=device)
    works = bool((tensor @ tensor).item() == 14)
    limit = os.environ.get("OMP_NUM_THREADS")
    said = f"{threads} of {os.cpu_count()} cores" + (f" (OMP_NUM_THREADS={limit})" if limit else "")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    memory = _memory()
    return [
        _Check(
            state="ok" if works else "bad",
            subject="device",
            result=name if works else f"{name} computes wrong results",
        ),
        _Check(state="ok", subject="threads", result=said),
        _waiting(),
        _Check(
            state="ok" if memory is None or memory >= 2 else "note", subject="memory", result=_gib(memory)
        ),
        _Check(state="ok" if free >= 2 else "note", subject="disk here", result=f"{_gib(free)} free"),
    ]


def _memory() -> float | None:
    """Return the machine's memory in GiB; None if the system does not report it."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _gib(size: float | None) -> str:
    return "unknown" if size is None else f"{size:.1f} GiB"


def _models() -> list[_Check]:
    """Compare every shipped model's files with their recorded hashes."""
    from lavibridge.core.files import file_sha256, read_json, shipped_models
    from lavibridge.core.paths import models_folder

    names = shipped_models()
    if not names:
        return [
            _Check(
                state="bad", subject="models", result="the shipped miniature models are missing: reinstall"
            )
        ]
    findings = []
    for name in names:
        folder = models_folder() / name
        if not (folder / "hashes.json").is_file():
            findings.append(
                _Check(state="bad", subject=name, result="hashes.json is missing: reinstall lavibridge")
            )
            continue
        hashes = read_json(folder / "hashes.json")
        wrong = [
            file
            for file, kept in hashes.items()
            if not (folder / file).is_file() or file_sha256(folder / file) != kept
        ]
        found = (
            f"damaged: {', '.join(wrong)}: reinstall lavibridge"
            if wrong
            else f"{len(hashes)} files as shipped"
        )
        findings.append(_Check(state="bad" if wrong else "ok", subject=name, result=found))
    return findings


def _packaged_models() -> list[_Check]:
    """Look for the models in other Python packages."""
    from lavibridge.core.packaged import PACKAGED
    from lavibridge.core.sources import GGUF

    findings = []
    for name, model in PACKAGED.items():
        path = model.path()
        advice = None if path is not None else model.install
        if path is not None and path.suffix == GGUF and find_spec("gguf") is None:
            advice = "pip install 'lavibridge[gguf]'"
        result = f"{model.hub_id}, " + ("installed" if advice is None else f"not usable yet: {advice}")
        findings.append(_Check(state="ok" if advice is None else "note", subject=name, result=result))
    return findings


def _network() -> _Check:
    """Contact the hub once, unless it is disabled."""
    from huggingface_hub import constants, is_offline_mode

    from lavibridge.core.hub import why_hub_is_unreachable

    if is_offline_mode():
        told = "offline (HF_HUB_OFFLINE is set): only folders and installed models are available"
        return _Check(state="ok", subject="network", result=told)
    reason = why_hub_is_unreachable()
    if reason is None:
        return _Check(
            state="ok", subject="network", result=f"{constants.ENDPOINT} answers: its models are available"
        )
    told = (
        f"{constants.ENDPOINT} cannot be reached ({reason}): only folders and installed models are "
        "available; set HF_HUB_OFFLINE=1 to avoid waiting for it"
    )
    return _Check(state="note", subject="network", result=told)
