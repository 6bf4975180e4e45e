"""The bridge: language model, connector and vision model as one module that trains, draws, saves and loads.

    prompts --language (frozen + LoRA)--> features --connector (trained)--> conditioning
    (noisy, t, conditioning) --vision (frozen + LoRA)--> prediction
    loss = weight(t) * mean((prediction - target)^2)

Zhao et al. 2024 (LaVi-Bridge), arXiv 2403.07860.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Num
from PIL import Image
from torch import Tensor, nn

from lavibridge import lora
from lavibridge.bridge import store
from lavibridge.connectors.base import Connector
from lavibridge.core import registry
from lavibridge.core.config import validate
from lavibridge.core.contracts import Batch, Conditioning, TextFeatures
from lavibridge.core.device import pick_device
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.core.files import shipped_models
from lavibridge.core.log import console
from lavibridge.core.sources import RANDOM
from lavibridge.diffusion import objective
from lavibridge.generation.draw import Order, draw
from lavibridge.language.base import LanguageModel
from lavibridge.lora import LoraSettings
from lavibridge.vision.base import VisionModel

PARTS = ("language_lora", "connector", "vision_lora")
"""What is trained."""
PUBLISHED_LR: Mapping[str, Mapping[str, float]] = {
    "sd": {"language_lora": 5e-6, "connector": 1e-4, "vision_lora": 1e-4},
    "pixart": {"language_lora": 5e-6, "connector": 2e-5, "vision_lora": 2e-5},
}
"""The published learning rates, by kind of vision model and trained part."""
LoraChoice = LoraSettings | Mapping[str, Any] | Literal["default"] | None


class Bridge(nn.Module):
    """A language model connected to a vision model; only LoRA and the connector are trained."""

    def __init__(self, language: LanguageModel, connector: Connector, vision: VisionModel) -> None:
        super().__init__()
        self.language = language
        self.connector = connector
        self.vision = vision
        self.is_merged = False

    @staticmethod
    def compose(
        language: str | Mapping[str, Any] | LanguageModel,
        vision: str | Mapping[str, Any] | VisionModel,
        connector: str | Mapping[str, Any] = "lavi",
        language_lora: LoraChoice = "default",
        vision_lora: LoraChoice = "default",
    ) -> "Bridge":
        """Connect two pretrained models.

        Each is a source, a mapping of options (``kind`` is found out where it is not among them), or a built
        model. ``connector`` is a kind or a mapping with ``kind``. LoRA is the published one by default; None
        leaves a model as it is. Raises RecipeError or ModelError, before weights are loaded where it can.
        """
        connector_class, connector_config = _connector(connector)
        settings = [
            _lora_settings(language_lora, "language_lora"),
            _lora_settings(vision_lora, "vision_lora"),
        ]
        speaker = language if isinstance(language, LanguageModel) else _component("language", language)
        painter = vision if isinstance(vision, VisionModel) else _component("vision", vision)
        bridge = Bridge(speaker, connector_class(connector_config, speaker.spec, painter.spec), painter)
        if bridge.connector.per_block:
            painter.open_blocks()
        for model, chosen, name in zip((speaker, painter), settings, ("language", "vision"), strict=True):
            if chosen is not None:
                lora.inject(model.backbone, chosen, model.lora_targets, f"{name} model")
        return bridge

    @property
    def device(self) -> torch.device:
        """Where the vision model's weights lie."""
        return self.vision.alphas.device

    def features(self, prompts: Sequence[str]) -> TextFeatures:
        """What the language model makes of prompts; without gradients where it has no LoRA."""
        reading = self.connector.reading
        is_trained = lora.has_lora(self.language.backbone) or reading.queries is not None
        with torch.set_grad_enabled(torch.is_grad_enabled() and is_trained):
            return self.language.encode(prompts, reading)

    def condition(self, prompts: Sequence[str], t: Num[Tensor, " batch"] | None = None) -> Conditioning:
        """The conditioning of prompts, at the vision model's times ``t`` for time-aware connectors."""
        return self.connector(self.features(prompts), t)

    def forward(
        self,
        batch: Batch,
        t: Int[Tensor, " batch"],
        noise: Float[Tensor, "batch channel h w"],
        weighting: str = "uniform",
        gamma: float = 5.0,
    ) -> Float[Tensor, " batch"]:
        """The weighted loss of each sample at the steps ``t`` of the vision model's schedule."""
        if self.is_merged:
            raise ModelError("a merged bridge cannot be trained: call unmerge() first")
        x0 = self.latents(batch)
        alpha, sigma, times = self.vision.alphas[t], self.vision.sigmas[t], self.vision.times[t]
        xt = objective.corrupt(x0, noise, alpha, sigma)
        prediction = self.vision.predict(xt, times, self.condition(batch.prompts, times))
        wanted = objective.target(self.vision.prediction_type, x0, noise, alpha, sigma)
        error = (prediction.float() - wanted).square().mean(dim=(1, 2, 3))
        snr = objective.snr(alpha, sigma)
        return error * objective.weight(weighting, gamma, snr, self.vision.prediction_type)

    def latents(self, batch: Batch) -> Float[Tensor, "batch channel h w"]:
        """A batch's latents, or its pictures encoded."""
        if batch.latents is not None:
            return batch.latents
        assert batch.images is not None  # a Batch has one of the two
        return self.vision.encode(batch.images)

    def trained_parameters(self) -> dict[str, dict[str, nn.Parameter]]:
        """Trained weights by part and name; a part that is not there is empty."""
        return {
            "language_lora": lora.lora_parameters(self.language.backbone),
            "connector": dict(self.connector.named_parameters()),
            "vision_lora": lora.lora_parameters(self.vision.backbone),
        }

    def cut_notes(self, prompts: Sequence[str]) -> list[str]:
        """A sentence for each prompt that is too long, saying what of it is cut off."""
        used, cut = self.language.count_tokens(prompts)
        return [
            f"prompt {index + 1} ('{prompt[:40]}...') is too long: its first {kept} tokens are used, "
            f"the last {lost} are cut off"
            for index, (prompt, kept, lost) in enumerate(zip(prompts, used, cut, strict=True))
            if lost
        ]

    def generate(
        self,
        prompts: str | Sequence[str],
        seed: int | Sequence[int] = 0,
        steps: int = 20,
        guidance: float = 7.5,
        height: int | None = None,
        width: int | None = None,
        batch: int = 16,
        sampler: str = "unipc",
        negative_prompt: str = "",
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[Image.Image]:
        """Draw one picture for each prompt, RGB.

        ``seed`` is one for all prompts or one for each. The same prompt and seed give the same picture,
        whatever stands beside them. With ``guidance`` 1 only the prompt counts. ``on_step`` hears (steps
        done, steps in all).
        """
        wanted = [prompts] if isinstance(prompts, str) else list(prompts)
        empty = [str(index + 1) for index, prompt in enumerate(wanted) if not prompt.strip()]
        if not wanted or empty:
            found = f"prompt {', '.join(empty)} is empty" if empty else "there are no prompts"
            raise RecipeError(
                f"{found}: give a text to draw (the empty prompt is what guidance leads away from, and is "
                "used for that by itself)"
            )
        seeds = [seed] * len(wanted) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(wanted):
            raise RecipeError(
                f"give one seed, or one for each prompt: {len(seeds)} seeds, {len(wanted)} prompts"
            )
        for name, number in (("steps", steps), ("batch", batch)):
            if number < 1:
                raise RecipeError(f"{name} must be 1 or more, found {number}")
        for note in self.cut_notes(wanted):
            console.print(f"note: {note}", markup=False)
        size = (height or self.vision.default_size, width or self.vision.default_size)
        shape = self.vision.latent_shape(*size)
        order = Order(
            prompts=tuple(wanted),
            seeds=tuple(seeds),
            shape=shape,
            steps=steps,
            guidance=guidance,
            batch=batch,
            sampler=sampler,
            negative_prompt=negative_prompt,
        )
        was_training = {module: module.training for module in self.modules()}
        self.eval()
        try:
            return draw(order, self.features, self.connector, self.vision, self.device, on_step)
        finally:
            for module, mode in was_training.items():
                module.training = mode

    def save_pretrained(self, folder: str | Path) -> None:
        """Write bridge.json, the connector and LoRA in PEFT's layout; the frozen models are only named."""
        store.write(Path(folder), self.language, self.connector, self.vision)

    @staticmethod
    def from_pretrained(folder: str | Path, device: str = "auto") -> "Bridge":
        """Load a saved bridge, or a run folder's newest complete checkpoint, its averaged weights first."""
        stored = store.read(Path(folder))
        bridge = Bridge.compose(
            stored.language, stored.vision, stored.connector, stored.language_lora, stored.vision_lora
        )
        store.load_weights(stored, bridge.language, bridge.connector, bridge.vision)
        return bridge.to(pick_device(device)).eval()

    @staticmethod
    def native(vision: str | Mapping[str, Any] | VisionModel, device: str = "auto") -> "Bridge":
        """A published pipeline as it is: under its own text encoder, pads in view, nothing trained."""
        if isinstance(vision, VisionModel):
            options: Mapping[str, Any] = vision.config.model_dump()
        else:
            options = {"source": vision} if isinstance(vision, str) else vision
        where = {name: options[name] for name in ("source", "revision") if name in options}
        bridge = Bridge.compose(
            language={**where, "see_padding": True},
            vision=vision,
            connector="identity",
            language_lora=None,
            vision_lora=None,
        )
        return bridge.to(pick_device(device)).eval()

    @staticmethod
    def open(source: str, device: str = "auto") -> "Bridge":
        """A saved bridge or run; or an image model, shipped or a folder, as it was published.

        A hub id is not looked up here, as a mistyped run folder looks like one: use ``native`` for it.
        """
        is_model = source in shipped_models() or (Path(source) / "model_index.json").is_file()
        return Bridge.native(source, device) if is_model else Bridge.from_pretrained(source, device)

    def merge(self) -> "Bridge":
        """Add LoRA into the weights for faster drawing; unmerge before training on."""
        for model in (self.language, self.vision):
            lora.merge(model.backbone)
        self.is_merged = True
        return self

    def unmerge(self) -> "Bridge":
        """Undo ``merge``, but for rounding."""
        for model in (self.language, self.vision):
            lora.unmerge(model.backbone)
        self.is_merged = False
        return self


def _component(room: str, choice: str | Mapping[str, Any]) -> Any:
    """Build a model from its source or its options; its kind is found out where none is named."""
    options = {"source": choice} if isinstance(choice, str) else dict(choice)
    kind = options.pop("kind", None)
    source = options.get("source")
    if not isinstance(source, str):
        raise RecipeError(f"{room}.source: give a folder, a shipped model's name, a hub id or 'random'")
    if kind is None and source == RANDOM:
        raise RecipeError(
            f"{room}.kind: a random toy needs its kind named, one of {', '.join(registry.kinds(room))}"
        )
    chosen = registry.load(
        room, registry.detect(room, source, options.get("revision")) if kind is None else kind
    )
    return chosen(validate(chosen.Config, options, room))


def _connector(choice: str | Mapping[str, Any]) -> tuple[type[Connector], Connector.Config]:
    options = {"kind": choice} if isinstance(choice, str) else dict(choice)
    if "kind" not in options:
        raise RecipeError(f"connector.kind: name one of {', '.join(registry.kinds('connectors'))}")
    chosen = registry.load("connectors", options.pop("kind"))
    return chosen, validate(chosen.Config, options, "connector")


def _lora_settings(choice: LoraChoice, where: str) -> LoraSettings | None:
    if isinstance(choice, Mapping):
        return validate(LoraSettings, choice, where)
    return LoraSettings() if choice == "default" else choice
