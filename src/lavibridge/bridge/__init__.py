"""The bridge: three parts as one module, and the folder that it is saved in."""

from lavibridge.bridge.module import TRAINED_PARTS, Bridge

__all__ = ["TRAINED_PARTS", "Bridge"]
