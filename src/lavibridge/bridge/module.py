"""The bridge: language model, connector and vision model as one module that trains, draws, saves and loads.

    prompts --language (frozen + LoRA)--> features --connector (trained)--> conditioning
    (noisy, t, conditioning) --vision (frozen + LoRA)--> prediction
    loss = weight(t) * mean((prediction - target)^2)

Zhao et al. 2024 (LaVi-Bridge), arXiv 2403.07860.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Num
from PIL import Image
from torch import Tensor, nn

from lavibridge import lora
from lavibridge.bridge import choices, store
from lavibridge.bridge.choices import LoraChoice
from lavibridge.bridge.states import need_weights, need_whole
from lavibridge.connectors.base import Connector
from lavibridge.core.contracts import Batch, Conditioning, TextFeatures
from lavibridge.core.device import pick_device
from lavibridge.core.errors import ModelError
from lavibridge.core.files import shipped_models
from lavibridge.diffusion import objective
from lavibridge.diffusion.guidance import Interval, check_interval
from lavibridge.generation.asked import asked_for, check_step_cache, check_weights, note_cuts
from lavibridge.generation.draw import Order, draw
from lavibridge.generation.emphasis import read
from lavibridge.generation.quality import EXACT, read_quality
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel

PARTS = ("language_lora", "connector", "vision_lora")
"""What is trained."""


class Bridge(nn.Module):
    """A language model connected to a vision model; only LoRA and the connector are trained."""

    def __init__(self, language: LanguageModel, connector: Connector, vision: VisionModel) -> None:
        super().__init__()
        self.language = language
        self.connector = connector
        self.vision = vision
        self.origin: dict[str, str] = {}
        """Where it was read from: the folder and the SHA-256 of its bridge.json, or the image model."""
        self.distilled_guidance_scale: float | None = None
        """The guidance under which a teacher taught it, which it so draws without; None: none."""

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
        connector_class, connector_config = choices.connector(connector)
        settings = [
            choices.lora_settings(language_lora, "language_lora"),
            choices.lora_settings(vision_lora, "vision_lora"),
        ]
        speaker = language if isinstance(language, LanguageModel) else choices.component("language", language)
        painter = vision if isinstance(vision, VisionModel) else choices.component("vision", vision)
        bridge = Bridge(speaker, connector_class(connector_config, speaker.spec, painter.spec), painter)
        if bridge.connector.per_block:
            painter.open_blocks()
        unread = speaker.unread(bridge.connector.reading)
        for model, chosen, name, unused in (
            (speaker, settings[0], "language model", unread),
            (painter, settings[1], "vision model", []),
        ):
            if chosen is not None:
                lora.inject(model.backbone, chosen, model.lora_targets, name, unused)
        return bridge

    @property
    def default_guidance(self) -> float:
        """The scale to draw with: the image model's own, or none where the bridge has learnt it."""
        return self.vision.default_guidance if self.distilled_guidance_scale is None else 1.0

    @property
    def is_merged(self) -> bool:
        """Whether LoRA is added into the weights of one of the models."""
        return any(lora.is_merged(model.backbone) for model in (self.language, self.vision))

    @property
    def device(self) -> torch.device:
        """Where the vision model's weights lie."""
        return self.vision.alphas.device

    @property
    def learns_through_language(self) -> bool:
        """Whether gradients pass through the language model: to its LoRA, or to vectors that it is asked."""
        return lora.has_lora(self.language.backbone) or self.connector.reading.queries is not None

    def features(self, prompts: Sequence[str]) -> TextFeatures:
        """What the language model makes of prompts; without gradients where it has no LoRA."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.learns_through_language):
            return self.language.encode(prompts, self.connector.reading)

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
        features = self.features(batch.prompts) if batch.features is None else batch.features
        prediction = self.vision.predict(xt, times, self.connector(features, times))
        wanted = batch.wanted
        if wanted is None:
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

    def generate(
        self,
        prompts: str | Sequence[str],
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance: float | None = None,
        quality: str = EXACT,
        guidance_interval: Interval | None = None,
        height: int | None = None,
        width: int | None = None,
        batch: int = 16,
        sampler: str | None = None,
        negative_prompt: str = "",
        weights: bool = False,
        step_cache: float | None = None,
        on_step: Callable[[int, int], None] | None = None,
        on_picture: Callable[[int, Image.Image], None] | None = None,
    ) -> list[Image.Image]:
        """Draw one picture for each prompt, RGB.

        ``seed`` is one for all prompts or one for each. The same prompt and seed give the same picture, but
        for rounding where others stand beside them (`generation/sample.py`). ``guidance`` is
        `default_guidance` where it is not given; with 1 only the prompt counts, and so outside of
        ``guidance_interval``, start and stop as shares of the steps, where a step costs half. ``quality``
        is exact, high or fast (`generation/quality.py`) and decides what is not given. ``weights`` reads
        brackets such as `(red:1.3)` as weights (`generation/emphasis.py`), not as text. ``step_cache``, such
        as 0.1, lets steps of some transformers reuse the one before (`vision/parts/step_cache.py`).
        ``on_step`` hears (steps done, all), ``on_picture`` (number, picture).
        """
        worth = read_quality(quality)
        need_weights(self, "draw with")
        steps = worth.steps if steps is None else steps
        interval = worth.guidance_interval if guidance_interval is None else guidance_interval
        (wanted, seeds), away = asked_for(prompts, seed, batch, weights), read(negative_prompt, weights)
        check_interval(interval)
        check_step_cache(step_cache)
        check_weights((*wanted, away), self.connector)
        note_cuts(wanted, self.language)
        side = self.vision.default_size
        order = Order(
            prompts=wanted,
            seeds=seeds,
            shape=self.vision.latent_shape(height or side, width or side),
            steps=steps,
            guidance=self.default_guidance if guidance is None else guidance,
            guidance_interval=interval,
            bfloat16=worth.bfloat16,
            batch=batch,
            sampler=worth.sampler if sampler is None else sampler,
            negative_prompt=away,
            step_cache=step_cache,
        )
        was_training = {module: module.training for module in self.modules()}
        self.eval()
        try:
            parts = self.features, self.language.spans, self.connector, self.vision
            return draw(order, *parts, self.device, on_step, on_picture)
        finally:
            for module, mode in was_training.items():
                module.training = mode

    def save_pretrained(self, folder: str | Path) -> None:
        """Write bridge.json, the connector and LoRA in PEFT's layout; the frozen models are only named."""
        need_weights(self, "save")
        store.write(Path(folder), self.language, self.connector, self.vision, self.distilled_guidance_scale)

    @staticmethod
    def from_pretrained(folder: str | Path, device: str = "auto") -> "Bridge":
        """Load a saved bridge, or a run folder's newest complete checkpoint, its averaged weights first."""
        stored = store.read(Path(folder))
        bridge = Bridge.compose(
            stored.language, stored.vision, stored.connector, stored.language_lora, stored.vision_lora
        )
        store.load_weights(stored, bridge.language, bridge.connector, bridge.vision)
        bridge.distilled_guidance_scale = stored.distilled_guidance_scale
        bridge.origin = {"folder": stored.folder.as_posix(), "sha256": stored.sha256}
        return bridge.to(pick_device(device)).eval()

    @staticmethod
    def import_released(format: str, path: str | Path, **models: Any) -> "Bridge":
        """A bridge of released weights: `lavibridge.import_released`, whose arguments these are."""
        made: Bridge = import_module("lavibridge.interop.released").import_released(format, path, **models)
        return made

    def to_diffusers(self, task: str = "text-to-image", controlnet: Any | None = None) -> Any:
        """The bridge as a Diffusers pipeline: `lavibridge.to_diffusers`."""
        return import_module("lavibridge.interop.pipelines").to_diffusers(self, task, controlnet)

    @staticmethod
    def native(vision: str | Mapping[str, Any] | VisionModel, device: str = "auto") -> "Bridge":
        """A published pipeline as it is: its own text encoder and padding, nothing trained."""
        painter = vision if isinstance(vision, VisionModel) else choices.component("vision", vision)
        bridge = Bridge.compose(
            language=choices.native_text(painter),
            vision=painter,
            connector="identity",
            language_lora=None,
            vision_lora=None,
        )
        bridge.origin = {"model": painter.config.source}
        return bridge.to(pick_device(device)).eval()

    @staticmethod
    def open(source: str, device: str = "auto") -> "Bridge":
        """A saved bridge or run, LoRA merged, to draw with; or an image model, shipped or a folder.

        A hub id is not looked up here, as a mistyped run folder looks like one: use ``native`` for it.
        """
        is_model = source in shipped_models() or (Path(source) / "model_index.json").is_file()
        return Bridge.native(source, device) if is_model else Bridge.from_pretrained(source, device).merge()

    def merge(self) -> "Bridge":
        """Add LoRA into the weights for faster drawing; unmerge before training on."""
        need_whole(self, "merge")
        for model in (self.language, self.vision):
            lora.merge(model.backbone)
        return self

    def unmerge(self) -> "Bridge":
        """Undo ``merge``, but for rounding."""
        need_whole(self, "unmerge")
        for model in (self.language, self.vision):
            lora.unmerge(model.backbone)
        return self
