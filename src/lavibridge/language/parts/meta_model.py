"""A language model without weights, on torch's meta device: every size, nothing read but its config.json."""

from collections.abc import Mapping
from typing import Any

import torch


def outline(
    model: Any, description: Mapping[str, Any], options: Mapping[str, Any], dtype: torch.dtype
) -> Any:
    """Build the class ``model`` of the transformers library from the contents of its config.json.

    ``options`` are what it is loaded with; as in loading, those that its configuration knows go there.
    """
    inner = description.get(model.config_class.base_config_key, description)
    settings, rest = model.config_class.from_dict(dict(inner), return_unused_kwargs=True, **options)
    return model(settings, **rest).to(dtype)
