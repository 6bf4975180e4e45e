"""The denoising driver: one step of many requests, each with its own sampler, step, guidance and seeds.

    states --layout--> calls of the denoiser --predictions--> one step of each state's own sampler

A batch of `BridgePipeline` is one state of many pictures. The server keeps a state for each picture, so that
pictures join and leave between steps. A layout decides which rows share a call:

    SeparateDenoiserCalls   a call for each state, padded to its longest prompt
    SharedDenoiserCalls     all states in one call of at least `least_rows` rows and `width` tokens, so that
                            on a CPU a row's bits do not depend on other rows (docs/decisions/0011)

The connector computes in its own number format; autocast to bfloat16 covers the denoiser alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Conditioning
from lavibridge.generation.attention_maps import AttentionMaps
from lavibridge.generation.request_state import RequestState
from lavibridge.vision.base import VisionModel


class DenoiserCalls(ABC):
    """How the rows of states are laid into calls of the denoiser."""

    @abstractmethod
    def predict(
        self, states: Sequence[RequestState], bridge: Bridge
    ) -> list[Float[Tensor, "row channel h w"]]:
        """The denoiser's predictions for each state's rows."""


@torch.no_grad()  # not inference_mode, in which sharded weights (FSDP2) would be gathered for drawing only
def take_denoising_step(states: Sequence[RequestState], bridge: Bridge, layout: DenoiserCalls) -> None:
    """Take one step of every state; all have one shape of latents and one setting of autocast."""
    for state, predictions in zip(states, layout.predict(states, bridge), strict=True):
        state.take(predictions)


class SeparateDenoiserCalls(DenoiserCalls):
    """A call of the denoiser for each state, as wide as its longest prompt."""

    def predict(
        self, states: Sequence[RequestState], bridge: Bridge
    ) -> list[Float[Tensor, "row channel h w"]]:
        """The denoiser's predictions for each state's rows."""
        return [self._predict(state, bridge) for state in states]

    def _predict(self, state: RequestState, bridge: Bridge) -> Float[Tensor, "row channel h w"]:
        noisy = state.noisy
        t = state.sampling.t.to(noisy.device).expand(len(noisy))
        conditioning = state.condition(bridge.connector, t)
        watched = {row: (maps, conditioning.mask[row]) for row, maps in state.maps_by_row().items()}
        return _call_denoiser(bridge.vision, noisy, t, conditioning, state.settings.autocast, watched)


SEPARATE_DENOISER_CALLS = SeparateDenoiserCalls()


@dataclass(frozen=True, kw_only=True)
class SharedDenoiserCalls(DenoiserCalls):
    """All states in shared calls of the denoiser; not for connectors that are per-block."""

    width: int
    """Tokens of every call; one more than the longest prompt has, so that a mask is always needed."""
    least_rows: int
    """Rows of a call; shorter ones are filled up."""

    def predict(
        self, states: Sequence[RequestState], bridge: Bridge
    ) -> list[Float[Tensor, "row channel h w"]]:
        """The denoiser's predictions for each state's rows."""
        rows = [row for state in states for row in _rows(state, bridge)]
        predictions = predict_denoiser_rows(bridge.vision, rows, self, states[0].settings.autocast)
        return list(torch.stack(predictions).split([len(state.texts) for state in states]))


@dataclass(frozen=True, kw_only=True)
class DenoiserRow:
    """What the denoiser is shown of one picture, under one prompt."""

    noisy: Float[Tensor, "channel h w"]
    t: Float[Tensor, ""]
    conditioning: Conditioning
    """A batch of one without padding."""
    maps: AttentionMaps | None = None

    @property
    def length(self) -> int:
        """Number of conditioning tokens."""
        return self.conditioning.tokens.shape[1]


def predict_denoiser_rows(
    vision: VisionModel, rows: Sequence[DenoiserRow], layout: SharedDenoiserCalls, autocast: bool = False
) -> list[Float[Tensor, "channel h w"]]:
    """The denoiser's prediction for each row, in shared calls."""
    predictions: dict[int, Tensor] = {}
    for chosen in _calls(vision, rows):
        filled = [rows[index] for index in chosen]
        filled += [filled[0]] * (layout.least_rows - len(filled))
        width = layout.width if vision.honours_mask else filled[0].length
        conditioning = Conditioning.pad([row.conditioning for row in filled], width)
        watched = {
            place: (maps, conditioning.mask[place])
            for place, maps in enumerate(rows[index].maps for index in chosen)
            if maps is not None
        }
        predicted = _call_denoiser(
            vision,
            torch.stack([row.noisy for row in filled]),
            torch.stack([row.t for row in filled]),
            conditioning,
            autocast,
            watched,
        )
        predictions |= dict(zip(chosen, predicted, strict=False))  # without the rows that fill the call
    return [predictions[index] for index in range(len(rows))]


def _call_denoiser(
    vision: VisionModel,
    noisy: Float[Tensor, "row channel h w"],
    t: Num[Tensor, " row"],
    conditioning: Conditioning,
    autocast: bool,
    watched: Mapping[int, tuple[AttentionMaps, Tensor]],
) -> Float[Tensor, "row channel h w"]:
    """Call the denoiser once; ``watched`` has attention maps and the mask of the tokens, by row."""
    with torch.autocast(noisy.device.type, torch.bfloat16, enabled=autocast), _watching(watched):
        return vision.predict(noisy, t, conditioning)


def _rows(state: RequestState, bridge: Bridge) -> Iterator[DenoiserRow]:
    noisy, maps = state.noisy, state.maps_by_row()
    t = state.sampling.t.to(noisy.device).float()
    for row, text in enumerate(state.texts):
        conditioning = text.condition(bridge.connector, t[None])
        yield DenoiserRow(noisy=noisy[row], t=t, conditioning=conditioning, maps=maps.get(row))


def _calls(vision: VisionModel, rows: Sequence[DenoiserRow]) -> list[list[int]]:
    """Which rows share a call: all of them, or those of one length where the denoiser takes no mask."""
    if vision.honours_mask:
        return [list(range(len(rows)))]
    lengths = sorted({row.length for row in rows})
    return [[i for i, row in enumerate(rows) if row.length == length] for length in lengths]


@contextmanager
def _watching(watched: Mapping[int, tuple[AttentionMaps, Tensor]]) -> Iterator[None]:
    with ExitStack() as stack:
        for row, (maps, mask) in watched.items():
            stack.enter_context(maps.watching(row, mask))
        yield
