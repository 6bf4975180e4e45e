"""Configurations of published models, as folders without weights."""

from pathlib import Path

import pytest
from published_configs import write_language_model, write_pipeline


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T5-Large and Stable Diffusion 1.4: every configuration, no weights and no tokenizer."""
    folder = tmp_path_factory.mktemp("published")
    write_language_model("t5-large", folder)
    write_pipeline("sd14", folder)
    return folder
