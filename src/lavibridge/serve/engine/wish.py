"""A wish: all that decides one picture, so that the same wish gives the same picture."""

from dataclasses import dataclass

from lavibridge import __version__
from lavibridge.generation.emphasis import Weighted, read


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One picture that is asked for."""

    model: str
    """Name of the bridge on this server."""
    prompt: str
    """As the client wrote it."""
    negative_prompt: str
    seed: int
    steps: int
    guidance: float
    quality: str
    """A name of `generation/quality.py`; `steps` are its own or others."""
    width: int
    height: int
    weights: bool = False
    """Whether brackets in both prompts weigh words, or are text."""
    is_explained: bool = False
    """Whether what its regions attended to is noted down (`why`); that changes no picture."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width: pictures of one shape can be drawn together."""
        return self.height, self.width

    @property
    def read_prompt(self) -> Weighted:
        """The prompt, with its weights."""
        return read(self.prompt, self.weights)

    @property
    def read_negative(self) -> Weighted:
        """The negative prompt, with its weights."""
        return read(self.negative_prompt, self.weights)

    def record(self) -> dict[str, str | int | float]:
        """What goes into the picture's file, to draw it again."""
        return {
            "model": self.model,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "weights": self.weights,
            "seed": self.seed,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "quality": self.quality,
            "size": f"{self.width}x{self.height}",
            "lavibridge": __version__,
        }
