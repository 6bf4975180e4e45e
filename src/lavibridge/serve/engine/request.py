"""A request for one picture: everything that decides it, so that the same request gives the same picture."""

from dataclasses import dataclass

from lavibridge import __version__
from lavibridge.generation.emphasis import WeightedPrompt, read_emphasis


@dataclass(frozen=True, kw_only=True)
class Request:
    """One picture that a client asks for."""

    model: str
    """Name of the model on this server."""
    prompt: str
    """As the client wrote it."""
    negative_prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    quality: str
    """A name of `generation/quality.py`; ``num_inference_steps`` overrides its own."""
    width: int
    height: int
    prompt_weighting: bool = False
    """Whether brackets in both prompts weigh words, or are text."""
    has_attention_maps: bool = False
    """Whether attention maps are collected; that changes no picture."""

    @property
    def weighted_prompt(self) -> WeightedPrompt:
        """The prompt with its weights."""
        return read_emphasis(self.prompt, self.prompt_weighting)

    @property
    def weighted_negative_prompt(self) -> WeightedPrompt:
        """The negative prompt with its weights."""
        return read_emphasis(self.negative_prompt, self.prompt_weighting, is_negative=True)

    def record(self) -> dict[str, str | int | float]:
        """The recipe that the picture's file holds, to draw it again."""
        return {
            "model": self.model,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "prompt_weighting": self.prompt_weighting,
            "seed": self.seed,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "quality": self.quality,
            "size": f"{self.width}x{self.height}",
            "lavibridge": __version__,
        }
