"""The bridge: language model, connector and vision model as one module, and its saved form."""

from lavibridge.bridge.module import TRAINED_PARTS, Bridge

__all__ = ["TRAINED_PARTS", "Bridge"]
