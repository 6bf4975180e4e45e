"""Measures the loss on samples that training never uses, at fixed timesteps and with fixed noise.

    held-out image i, time j  ->  noise that is a function of i and j  ->  loss(i, j)       unweighted
    loss by time = mean over i       loss = mean over both       for the weights and for their average

Noise and captions are the same every time, and latents are their distribution's mean, so two measurements
differ only by the weights. The training loss is less sensitive: its noise hides the progress of a thousand
steps.
"""

from collections.abc import Mapping
from time import perf_counter
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.core.contracts import Batch
from lavibridge.core.seeds import mix_seeds
from lavibridge.data.base import Dataset
from lavibridge.data.pictures.decoding import normalize_pixels
from lavibridge.recipes.training_section import TrainingSection
from lavibridge.training.data.held_out import held_out_position
from lavibridge.training.loop import TrainingState, training_mode
from lavibridge.vision.base import VisionModel


@final
class Validator:
    """Measures a run on the first held-out samples; each process computes its share."""

    def __init__(
        self,
        held_out: Dataset,
        vision: VisionModel,
        settings: TrainingSection,
        size: tuple[int, int],
        process: int = 0,
        processes: int = 1,
    ) -> None:
        wanted = settings.validation
        assert wanted is not None  # without this section, no samples are held out
        self.every = wanted.every
        self.held_out = held_out
        self.vision = vision
        self.batch = settings.batch
        self.seed = wanted.seed
        self.size = size
        self.process = process
        self.processes = processes
        self.pictures = min(wanted.pictures, len(held_out))
        steps = len(vision.alphas)
        self.steps = [int((number + 0.5) / wanted.times * steps) for number in range(wanted.times)]
        self.latents: dict[int, Float[Tensor, "channel h w"]] = {}

    def measure(self, state: TrainingState) -> Mapping[str, Any]:
        """Measure the loss and return a record for the log; restores the training state afterwards."""
        begun = perf_counter()
        state.bridge.eval()
        measured: dict[str, Any] = _summary(self.losses(state))
        state.validation = measured["loss"]
        if state.ema is not None:
            with state.ema.applied():
                measured["ema"] = _summary(self.losses(state))
            state.validation = measured["ema"]["loss"]
        training_mode(state.bridge)
        measured |= {"pictures": self.pictures, "seconds": round(perf_counter() - begun, 3)}
        return {"step": state.step, "validation": measured}

    @torch.no_grad()
    def losses(self, state: TrainingState) -> Float[Tensor, "picture time"]:
        """Return the loss of every image at every time, in every process."""
        count, times = self.pictures * len(self.steps), len(self.steps)
        rounds = -(-count // (self.batch * self.processes))
        found = []
        for turn in range(rounds):
            start = (turn * self.processes + self.process) * self.batch
            # After the last pair, repeat the first ones, so that all processes call the model equally often.
            pairs = [divmod(number % count, times) for number in range(start, start + self.batch)]
            found.append(self.losses_of(state, pairs))
        gathered = state.gather(torch.stack(found))
        in_order = gathered.reshape(self.processes, rounds, self.batch).transpose(0, 1).flatten()
        return in_order[:count].reshape(self.pictures, times).float().cpu()

    def losses_of(self, state: TrainingState, pairs: list[tuple[int, int]]) -> Float[Tensor, " pair"]:
        """Return the losses of some pairs of image and time."""
        samples = [self.held_out.sample(picture) for picture, _ in pairs]
        latents = torch.stack([self.latent(picture) for picture, _ in pairs])
        noise = torch.stack(
            [self.noise(sample.name, time) for sample, (_, time) in zip(samples, pairs, strict=True)]
        )
        device = self.vision.alphas.device
        batch = Batch(
            prompts=tuple(sample.captions[0] for sample in samples),
            names=tuple(sample.name for sample in samples),
            latents=latents.to(device),
        )
        t = torch.tensor([self.steps[time] for _, time in pairs], device=device)
        losses: Float[Tensor, " pair"] = state.model(batch, t, noise.to(device))
        return losses

    def latent(self, picture: int) -> Float[Tensor, "channel h w"]:
        """Return the mean of an image's latents; encodes each image once."""
        if picture not in self.latents:
            pixels = torch.from_numpy(np.stack([normalize_pixels(self.held_out.picture(picture, self.size))]))
            mean, _ = self.vision.encode_moments(pixels.to(self.vision.alphas.device))
            self.latents[picture] = mean[0].cpu()
        return self.latents[picture]

    def noise(self, name: str, time: int) -> Float[Tensor, "channel h w"]:
        """The noise of an image at one of the times, as a function of the image's name."""
        generator = torch.Generator().manual_seed(
            mix_seeds(self.seed, int(held_out_position(name) * 2**56), time)
        )
        return torch.randn(self.vision.latent_shape(*self.size), generator=generator)


def _summary(losses: Float[Tensor, "picture time"]) -> dict[str, Any]:
    """The mean, its standard error over the images, and the means by time."""
    by_picture = losses.mean(dim=1)
    error = by_picture.std() / len(by_picture) ** 0.5 if len(by_picture) > 1 else torch.tensor(float("nan"))
    return {
        "loss": float(losses.mean()),
        "standard_error": float(error),
        "loss_by_time": losses.mean(dim=0).tolist(),
    }
