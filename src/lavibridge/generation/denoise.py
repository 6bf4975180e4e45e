"""Takes one denoising step of many requests, each with its own sampler, step, guidance and seeds.

    states --layout--> calls of the denoiser --predictions--> one step of each state's own sampler

`BridgePipeline` keeps one state for a whole batch of images. The server keeps one state for each image, so
that images join and leave between steps. A layout decides which rows share a call of the denoiser:

    SeparateDenoiserCalls   one call for each state, padded to its longest prompt
    SharedDenoiserCalls     one call for all states, with at least `least_rows` rows and exactly `width`
                            tokens, so that on a CPU no row changes the bits of another
                            (docs/decisions/0011)

The connector computes in its own number format; autocast to bfloat16 covers only the denoiser.
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
    """Decides which rows of the states share a call of the denoiser."""

    @abstractmethod
    def predict(
        self, states: Sequence[RequestState], bridge: Bridge
    ) -> list[Float[Tensor, "row channel h w"]]:
        """Return the denoiser's predictions for the rows of each state."""


@torch.no_grad()  # under inference_mode, FSDP2 would gather the sharded weights once more
def take_denoising_step(states: Sequence[RequestState], bridge: Bridge, layout: DenoiserCalls) -> None:
    """Take one step of every state; all states must share the latents' shape and the autocast setting."""
    for state, predictions in zip(states, layout.predict(states, bridge), strict=True):
        state.take(predictions)


class SeparateDenoiserCalls(DenoiserCalls):
    """Calls the denoiser once for each state, padded to the state's longest prompt."""

    def predict(
        self, states: Sequence[RequestState], bridge: Bridge
    ) -> list[Float[Tensor, "row channel h w"]]:
        """Return the denoiser's predictions for the rows of each state."""
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
    """Calls the denoiser for all states together. Per-block connectors are not supported."""

    width: int
    """Tokens of every call: one more than the longest prompt, so that every call takes a mask."""
    least_rows: int
    """Least number of rows of a call; calls with fewer repeat their first row."""

    def predict(
        self, states: Sequence[RequestState], bridge: Bridge
    ) -> list[Float[Tensor, "row channel h w"]]:
        """Return the denoiser's predictions for the rows of each state."""
        rows = [row for state in states for row in _rows(state, bridge)]
        predictions = predict_denoiser_rows(bridge.vision, rows, self, states[0].settings.autocast)
        return list(torch.stack(predictions).split([len(state.texts) for state in states]))


@dataclass(frozen=True, kw_only=True)
class DenoiserRow:
    """The denoiser's input for one image and one prompt."""

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
    """Predict all rows in shared calls of the denoiser."""
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
    """Call the denoiser once. ``watched`` maps a row to its attention maps and its tokens' mask."""
    with torch.autocast(noisy.device.type, torch.bfloat16, enabled=autocast), _watching(watched):
        return vision.predict(noisy, t, conditioning)


def _rows(state: RequestState, bridge: Bridge) -> Iterator[DenoiserRow]:
    noisy, maps = state.noisy, state.maps_by_row()
    t = state.sampling.t.to(noisy.device).float()
    for row, text in enumerate(state.texts):
        conditioning = text.condition(bridge.connector, t[None])
        yield DenoiserRow(noisy=noisy[row], t=t, conditioning=conditioning, maps=maps.get(row))


def _calls(vision: VisionModel, rows: Sequence[DenoiserRow]) -> list[list[int]]:
    """Group rows by call: all rows share one, or rows of equal length if the denoiser takes no mask."""
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
