"""FID's Inception: sizes, names of the published checkpoint, and the oddities that set it apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from lavibridge.core.errors import ModelError
from lavibridge.evaluation.sets.extractors import make_extractor
from lavibridge.evaluation.sets.inception import (
    INCEPTION_SIDE,
    INCEPTION_WIDTH,
    InceptionMixed,
    InceptionV3,
    load_inception,
)
from lavibridge.evaluation.sets.resize import resize


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights by chance, with what else the published file holds."""
    torch.manual_seed(0)
    network = InceptionV3()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # or deep layers tell no picture from another
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    state = {
        **network.state_dict(),
        "fc.weight": torch.zeros(1008, INCEPTION_WIDTH),
        "fc.bias": torch.zeros(1008),
    }
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    save_file(state, path)
    return path


def test_it_has_the_published_names_and_sizes() -> None:
    with torch.device("meta"):
        state = InceptionV3().state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert sum(np.prod(shape) for name, shape in shapes.items() if "conv.weight" in name) == 21_751_136
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5d.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6c.branch7x7dbl_5.conv.weight": (192, 160, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3_2b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch3x3dbl_3a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
    }.items():
        assert shapes[name] == shape


def test_features_are_those_of_the_loaded_weights_under_each_rule(weights: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    network, found = load_inception(weights), []
    for rule, middle in (("clean", 128), ("legacy", 127.5)):
        extractor = make_extractor(str(weights), rule)  # type: ignore[arg-type]
        found.append(extractor.features([Image.fromarray(pixels)])[0])
        assert extractor.card()["resize"] == rule
        ready = (torch.tensor(resize(pixels, INCEPTION_SIDE, rule)) - middle) / middle  # type: ignore[arg-type]
        with torch.no_grad():
            expected = network(ready.permute(2, 0, 1)[None].float())[0].numpy()
        assert expected.shape == (INCEPTION_WIDTH,)
        assert found[-1] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3 * np.abs(found[0]).max()
    with pytest.raises(ModelError, match="has no processor"):
        make_extractor(str(weights), "model")


def test_weights_that_do_not_fit_are_refused(weights: Path, tmp_path: Path) -> None:
    network = load_inception(weights)
    assert not network.training
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    path = tmp_path / "odd.safetensors"
    save_file({name: value for name, value in state.items() if "Mixed_7c" not in name}, path)
    with pytest.raises(ModelError, match="does not fit"):
        load_inception(path)
    path.write_bytes(b"no weights")
    with pytest.raises(ModelError, match="is not a safetensors file"):
        load_inception(path)


def test_the_mean_leaves_the_border_out_and_the_last_block_takes_the_maximum() -> None:
    x = torch.ones(1, 4, 5, 5)
    pooled = []
    for highest in (False, True):
        block = InceptionMixed(4, {}, 3, highest).eval()
        block.branch_pool = nn.Identity()  # type: ignore[assignment]
        assert torch.equal(block(x), x)  # a counted border would darken the edge
        ramp = torch.arange(25.0).view(1, 1, 5, 5)
        pooled.append(block(ramp)[0, 0, 0, 0].item())
    assert pooled == [3.0, 6.0]
