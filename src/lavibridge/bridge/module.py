"""The bridge: language model, connector and vision model as one module that trains, saves and loads.

    prompts --language (frozen + LoRA)--> features --connector (trained)--> conditioning
    (noisy, t, conditioning) --vision (frozen + LoRA)--> prediction
    loss = weight(t) * mean((prediction - target)^2)

Zhao et al. 2024 (LaVi-Bridge), arXiv 2403.07860.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from lavibridge import lora
from lavibridge.bridge import choices, saved_bridge
from lavibridge.bridge.choices import LoraChoice, ModelChoice
from lavibridge.bridge.stored_models import check_connector_fits, check_stored_models
from lavibridge.bridge.text_side import TextSide
from lavibridge.bridge.weight_checks import (
    require_full_weights,
    require_own_weights,
    require_weights,
    require_whole_weights,
)
from lavibridge.connectors.base import Connector
from lavibridge.core.contracts import Batch, Conditioning
from lavibridge.core.device import dtype_name, pick_device
from lavibridge.core.errors import ModelError
from lavibridge.core.placement import Quantization
from lavibridge.diffusion import objective
from lavibridge.diffusion.weighting.base import Weighting
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel

TRAINED_PARTS = ("language_lora", "connector", "vision_lora")
"""The parts of a bridge that training changes."""


class Bridge(TextSide):
    """A language model connected to a vision model; only LoRA and the connector are trained."""

    def __init__(self, language: LanguageModel, connector: Connector, vision: VisionModel) -> None:
        super().__init__(language, connector)
        self.vision = vision
        self.origin: dict[str, str] = {}
        """Its source: the folder and the SHA-256 of its bridge.json, or the vision model."""
        self.distilled_guidance_scale: float | None = None
        """The guidance scale that a teacher distilled into the bridge, or None."""

    @staticmethod
    def compose(
        language: ModelChoice,
        vision: ModelChoice,
        connector: str | Mapping[str, Any] = "lavi",
        language_lora: LoraChoice = "default",
        vision_lora: LoraChoice = "default",
    ) -> "Bridge":
        """Connect two pretrained models.

        ``language`` and ``vision`` are a source (a folder, a shipped model's name, a hub id), a mapping of
        options with ``source`` and optionally ``kind``, or a loaded model. ``connector`` is a kind or a
        mapping with ``kind``. LoRA has the published settings by default; None adds no LoRA to a model.
        Raises RecipeError or ModelError, if possible before it loads weights.
        """
        connector_class, connector_config = choices.connector_of_choice(connector)
        settings = [
            choices.lora_settings_of_choice(language_lora, "language_lora"),
            choices.lora_settings_of_choice(vision_lora, "vision_lora"),
        ]
        language_model: LanguageModel = choices.model_of_choice("language", language)
        vision_model: VisionModel = choices.model_of_choice("vision", vision)
        bridge = Bridge(
            language_model,
            connector_class(connector_config, language_model.spec, vision_model.spec),
            vision_model,
        )
        if bridge.connector.per_block:
            vision_model.enable_per_block_attention()
        unread = language_model.unread(bridge.connector.reading)
        for model, chosen, name, unused in (
            (language_model, settings[0], "language model", unread),
            (vision_model, settings[1], "vision model", []),
        ):
            if chosen is not None:
                lora.inject_lora(model.backbone, chosen, model.lora_targets, name, unused)
        return bridge

    @property
    def default_guidance_scale(self) -> float:
        """The default guidance scale: the vision model's own, or 1 if guidance was distilled."""
        return self.vision.default_guidance_scale if self.distilled_guidance_scale is None else 1.0

    @property
    def is_merged(self) -> bool:
        """Whether LoRA is merged into the weights of one of the models."""
        return any(lora.is_lora_merged(model.backbone) for model in (self.language, self.vision))

    @property
    def device(self) -> torch.device:
        """The device of the vision model's weights."""
        return self.vision.alphas.device

    def condition(self, prompts: Sequence[str], t: Num[Tensor, " batch"] | None = None) -> Conditioning:
        """The conditioning of prompts, at the vision model's times ``t`` for time-aware connectors."""
        return self.connector(self.features(prompts), t)

    def forward(
        self,
        batch: Batch,
        t: Int[Tensor, " batch"],
        noise: Float[Tensor, "batch channel h w"],
        weighting: Weighting | None = None,
    ) -> Float[Tensor, " batch"]:
        """Return each sample's loss at the schedule's steps ``t``, unweighted by default."""
        if self.is_merged:
            raise ModelError("a merged bridge cannot be trained: call unmerge() first")
        require_own_weights(self, "train")
        x0 = batch.latents
        alpha, sigma, times = self.vision.alphas[t], self.vision.sigmas[t], self.vision.times[t]
        xt = objective.add_noise(x0, noise, alpha, sigma)
        features = self.features(batch.prompts) if batch.features is None else batch.features
        prediction = self.vision.predict(xt, times, self.connector(features, times))
        target = batch.target
        if target is None:
            target = objective.prediction_target(self.vision.prediction_type, x0, noise, alpha, sigma)
        error = (prediction.float() - target).square().mean(dim=(1, 2, 3))
        if weighting is None:
            return error
        return error * weighting.weight(objective.snr(alpha, sigma), self.vision.prediction_type)

    def trained_parameters(self) -> dict[str, dict[str, nn.Parameter]]:
        """Return the trained weights by part and name; a missing part is empty."""
        return {
            "language_lora": lora.lora_parameters(self.language.backbone),
            "connector": dict(self.connector.named_parameters()),
            "vision_lora": lora.lora_parameters(self.vision.backbone),
        }

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write bridge.json, the connector, and LoRA in PEFT's layout. The frozen models are not copied.

        Raises ModelError if weights are on the meta device, or the denoiser's in files (offload).
        """
        require_own_weights(self, "save")
        for part in (self.language, self.connector):  # of the vision model, only LoRA is written
            require_weights(part, "save")
        saved_bridge.write_saved_bridge(
            Path(folder), self.language, self.connector, self.vision, self.distilled_guidance_scale
        )

    @staticmethod
    def from_pretrained(
        source: str | PathLike[str],
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        quantize: Quantization | None = None,
        language: str | PathLike[str] | Mapping[str, Any] | None = None,
        vision: str | PathLike[str] | Mapping[str, Any] | None = None,
    ) -> "Bridge":
        """Load a bridge that ``save_pretrained``, ``export`` or a training run wrote.

        ``source`` is the folder, single file or hub id of a saved bridge, a checkpoint, or a run folder,
        whose newest complete checkpoint is loaded, with averaged weights if it has them. ``dtype`` replaces
        the number format of both frozen models; ``quantize`` (8bit, 4bit) loads the linear layers of both in
        so many bits. ``revision`` is the branch, tag or commit of a hub id. ``language`` and ``vision``
        replace the source of a frozen model by another copy of the same one, or some of its options. Raises
        RunError if there is no bridge, or if its files have changed since it was saved.
        """
        stored = saved_bridge.read_saved_bridge(saved_bridge.locate_saved_bridge(source, revision))
        language_options = choices.replaced_options(stored.language, language)
        vision_options = choices.replaced_options(stored.vision, vision)
        check_stored_models(stored, language_options, vision_options)
        changed = {} if dtype is None else {"dtype": dtype_name(dtype)}
        changed |= {} if quantize is None else {"quantize": quantize}
        for settings, name in ((stored.language_lora, "language_lora"), (stored.vision_lora, "vision_lora")):
            choices.lora_settings_of_choice(settings, name)
        text = choices.model_of_choice("language", {**language_options, **changed})
        image = choices.model_of_choice("vision", {**vision_options, **changed})
        check_connector_fits(stored, text.config.source, text.spec, image.spec)
        bridge = Bridge.compose(
            text,
            image,
            stored.connector,
            stored.language_lora,
            stored.vision_lora,
        )
        saved_bridge.load_saved_weights(stored, bridge.language, bridge.connector, bridge.vision)
        bridge.distilled_guidance_scale = stored.distilled_guidance_scale
        bridge.origin = {"folder": stored.path.as_posix(), "sha256": stored.sha256}
        return bridge.to(pick_device(str(device))).eval()

    def merge(self) -> "Bridge":
        """Merge LoRA into the weights for faster generation; call ``unmerge`` before further training.

        Raises ModelError if weights that have LoRA are quantised, offloaded or sharded.
        """
        require_whole_weights(self, "merge")
        for model in (self.language, self.vision):
            if lora.has_lora(model.backbone):
                require_full_weights(model, "merge LoRA into")
        return self.merge_full_weights()

    def merge_full_weights(self) -> "Bridge":
        """Merge LoRA as ``merge`` does, and leave it beside quantised weights."""
        for model in (self.language, self.vision):
            if model.placement.quantize is None:
                lora.merge_lora(model.backbone)
        return self

    def unmerge(self) -> "Bridge":
        """Undo ``merge``, up to rounding."""
        require_whole_weights(self, "unmerge")
        for model in (self.language, self.vision):
            lora.unmerge_lora(model.backbone)
        return self
