"""`attention`: compares the output of each cross-attention layer for the same queries.

The two sets of tokens may differ in number and order, because only the output of attention counts. A step
calls neither denoiser nor language model, and no noise hides the target: it teaches more in seconds than the
diffusion loss does in minutes (LOG.md, 2026-11-21).

The queries come from noised images and the teacher's conditioning, and are computed once. Qin et al. 2023
(GlueGen, arXiv 2303.10056) learn text features from the encoder that they replace; the comparison of
attention outputs instead is our own.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from lavibridge.alignment.base import NoisedLatents
from lavibridge.alignment.parts.shared_latents import SharedLatentsObjective
from lavibridge.alignment.parts.variance import unexplained_by_query
from lavibridge.bridge import Bridge
from lavibridge.connectors.base import Connector
from lavibridge.core.contracts import Conditioning
from lavibridge.vision.base import VisionModel


class AttentionOutputs(SharedLatentsObjective):
    """Compares the outputs of the cross-attention layers."""

    class Config(SharedLatentsObjective.Config):
        """Options of `match: attention`."""

        queries_per_image: int = Field(default=48, ge=1)
        """Number of queries for each noised image and each layer, evenly spread over the image."""

    config: Config
    calls_layers = True
    queries: dict[str, Float[Tensor, "image query _"]]
    """The inputs of each cross-attention layer for the noised images."""

    @classmethod
    def refusal(
        cls, connector: type[Connector], config: Connector.Config, vision: type[VisionModel]
    ) -> str | None:
        """Refuse per-block connectors, and vision models without cross-attention layers."""
        if connector.per_block:
            return "it compares attention to the connector's tokens, but this connector changes single layers"
        if vision.joint_attention:
            return "it compares cross-attention layers, but this model has none that stands alone"
        return None

    @torch.no_grad()
    def prepare(self, student: Bridge, teacher: Bridge, noised: Sequence[NoisedLatents]) -> None:
        """Record the inputs of each cross-attention layer as the teacher denoises."""
        super().prepare(student, teacher, noised)
        vision = teacher.vision
        kept: dict[str, list[Tensor]] = {name: [] for name in vision.spec.blocks}
        hooks = [
            vision.backbone.get_submodule(name).register_forward_pre_hook(
                _recorder(inputs, self.config.queries_per_image), with_kwargs=True
            )
            for name, inputs in kept.items()
        ]
        try:
            for each in noised:
                vision.predict(each.latents, each.t, teacher.condition(each.prompts, each.t))
        finally:
            for hook in hooks:
                hook.remove()
        self.queries = {name: torch.cat(inputs) for name, inputs in kept.items()}

    def fractions(
        self,
        vision: VisionModel,
        conditioning: Conditioning,
        target: Conditioning,
        chosen: Int[Tensor, " caption"],
    ) -> list[Float[Tensor, ""]]:
        """Return two fvu for each layer: of what all queries have in common, and of the rest."""
        fractions: list[Tensor] = []
        for name, queries in self.queries.items():
            with torch.no_grad():
                target_output = vision.layer_output(name, queries[chosen], target)
            output = vision.layer_output(name, queries[chosen], conditioning)
            fractions += unexplained_by_query(output, target_output, chosen)
        return fractions


def _recorder(kept: list[Tensor], count: int) -> Callable[..., None]:
    """Return a pre-hook that records up to `count` of a layer's queries, evenly spread over the image."""

    def record(module: nn.Module, args: tuple[Tensor, ...], options: dict[str, Tensor]) -> None:
        queries = args[0] if args else options["hidden_states"]
        # Images of other shapes (data.buckets) have other numbers of queries; record equally many of each.
        places = kept[0].shape[1] if kept else min(count, queries.shape[1])
        kept.append(queries[:, torch.linspace(0, queries.shape[1] - 1, places).round().long()])

    return record
