"""A request for one image, with everything that determines it: equal requests give equal images."""

from dataclasses import dataclass

from lavibridge import __version__
from lavibridge.generation.emphasis import WeightedPrompt, read_emphasis


@dataclass(frozen=True, kw_only=True)
class Request:
    """One image that a client requests."""

    model: str
    """Name of the model on this server."""
    prompt: str
    """The prompt as the client wrote it."""
    negative_prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    quality: str
    """A name in `generation/quality.py`; ``num_inference_steps`` overrides its number of steps."""
    width: int
    height: int
    prompt_weighting: bool = False
    """Whether brackets in both prompts are word weights or plain text."""
    has_attention_maps: bool = False
    """Whether to collect attention maps, which does not change the image."""
    revised_prompt: str | None = None
    """What a proxy made of the prompt; None if the language model reads the prompt itself."""

    @property
    def weighted_prompt(self) -> WeightedPrompt:
        """The prompt with its word weights."""
        return read_emphasis(self.prompt, self.prompt_weighting)

    @property
    def encoded_text(self) -> str:
        """The text that the language model reads."""
        return self.weighted_prompt.text if self.revised_prompt is None else self.revised_prompt

    @property
    def weighted_negative_prompt(self) -> WeightedPrompt:
        """The negative prompt with its word weights."""
        return read_emphasis(self.negative_prompt, self.prompt_weighting, is_negative=True)

    def record(self) -> dict[str, str | int | float]:
        """Return the recipe to store in the image's file, from which it can be generated again."""
        revised = {} if self.revised_prompt is None else {"revised_prompt": self.revised_prompt}
        return {
            "model": self.model,
            "prompt": self.prompt,
            **revised,
            "negative_prompt": self.negative_prompt,
            "prompt_weighting": self.prompt_weighting,
            "seed": self.seed,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "quality": self.quality,
            "size": f"{self.width}x{self.height}",
            "lavibridge": __version__,
        }
