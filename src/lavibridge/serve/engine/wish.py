"""A wish: all that decides one picture, so that the same wish gives the same picture."""

from dataclasses import dataclass

from lavibridge import __version__


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One picture that is asked for."""

    model: str
    """Name of the bridge on this server."""
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance: float
    quality: str
    """A name of `generation/quality.py`; `steps` are its own or others."""
    width: int
    height: int
    is_explained: bool = False
    """Whether what its regions attended to is noted down (`why`); that changes no picture."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width: pictures of one shape can be drawn together."""
        return self.height, self.width

    def record(self) -> dict[str, str | int | float]:
        """What goes into the picture's file, to draw it again."""
        return {
            "model": self.model,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "seed": self.seed,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "quality": self.quality,
            "size": f"{self.width}x{self.height}",
            "lavibridge": __version__,
        }
