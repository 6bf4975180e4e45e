"""The part of a bridge that reads prompts: the language model and the connector."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from lavibridge import lora
from lavibridge.connectors.base import Connector
from lavibridge.core.contracts import TextFeatures
from lavibridge.language.base import LanguageModel


class TextSide(nn.Module, ABC):
    """A language model and the connector that reads it."""

    def __init__(self, language: LanguageModel, connector: Connector) -> None:
        super().__init__()
        self.language = language
        self.connector = connector

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of its weights."""

    @property
    def learns_through_language(self) -> bool:
        """Whether gradients pass through the language model, to its LoRA or to a connector's queries."""
        return lora.has_lora(self.language.backbone) or self.connector.reading.queries is not None

    @property
    def runs_at_each_step(self) -> bool:
        """Whether the connector runs before each call of the denoiser, and not once for a prompt."""
        return self.connector.time_aware or self.connector.per_block

    def features(self, prompts: Sequence[str], negative: bool = False) -> TextFeatures:
        """Return the language model's features of prompts, with gradients only if it has LoRA.

        A proxy revises the prompts first, but not negative ones.
        """
        self.language.load()
        encode = self.language.encode_negative if negative else self.language.encode
        texts = prompts if negative else self.language.revise(prompts)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.learns_through_language):
            return encode(texts, self.connector.reading)
