"""`mini-vae`: the autoencoder of the miniature vision models, 64 x 64 x 3 -> 16 x 16 x 4.

    loss = mean |x - decode(z)| + 1/2 mean (x - decode(z))^2 + KL_WEIGHT * KL(q(z | x) || N(0, 1))

The decoder trains alone for more than half of the run, as the released decoders of Stable Diffusion did: it
sharpens small things, while the latents, which image models are trained on, stay the same. The class is
Diffusers' `AutoencoderKL`; after training, the scaling factor gives latents unit variance, as in Rombach et
al. 2022 (arXiv 2112.10752).
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from lavibridge.world.checker import check_picture
from lavibridge.world.scene import CANVAS
from lavibridge.zoo.pretraining import Pretraining
from lavibridge.zoo.scene_pool import draw_scene_pool, sample_scene_pool, scene_pool_images

_KL_WEIGHT = 1e-4
_HELD_OUT_SEED = 7_000


def _build() -> AutoencoderKL:
    """Return the network with fresh weights."""
    return AutoencoderKL(
        block_out_channels=(24, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=64,
        mid_block_add_attention=False,
    )


class AutoencoderPretraining(Pretraining):
    """Reconstructs drawn scenes."""

    name = "mini-vae"
    steps = 5000
    batch = 8
    lr = 2e-3

    ENCODER_UNTIL = 2000
    """The step from which only the decoder trains."""
    CROPS_UNTIL = 0.8
    """Fraction of the run in which three steps of four train on windows; the rest uses whole pictures."""

    def __init__(self, pool: int = 10_000, held_out: int = 500) -> None:
        torch.manual_seed(self.seed)
        self.network = _build().to(memory_format=torch.channels_last)
        self.networks = nn.ModuleDict({"vae": self.network})
        self.pairs = sample_scene_pool(self.seed, pool)
        self.images = draw_scene_pool(self.pairs)
        self.held_out = sample_scene_pool(_HELD_OUT_SEED, held_out)

    def _whole(self) -> Tensor:
        chosen = torch.randint(len(self.images), (self.batch,))
        return scene_pool_images(self.images[chosen])

    def _crops(self) -> Tensor:
        """Return twice as many 32 x 32 windows around things, because most of a picture is empty ground,
        which is easy."""
        windows = []
        for index in torch.randint(len(self.images), (2 * self.batch,)).tolist():
            things = self.pairs[index].scene.things
            shares = torch.tensor([3.0 if thing.size == "small" else 1.0 for thing in things])
            x, y = things[int(torch.multinomial(shares, 1))].center
            jitter = torch.randint(-8, 9, (2,)).tolist()
            left, top = (
                min(max(int(c) - 16 + j, 0), CANVAS - 32) for c, j in zip((x, y), jitter, strict=True)
            )
            windows.append(self.images[index, top : top + 32, left : left + 32])
        return scene_pool_images(torch.stack(windows))

    def loss(self, step: int) -> Tensor:
        """Return the L1 + L2 reconstruction loss with a small KL term."""
        x = self._crops() if step % 4 and step < self.CROPS_UNTIL * self.steps else self._whole()
        with torch.set_grad_enabled(step < self.ENCODER_UNTIL):
            posterior = self.network.encode(x).latent_dist
        error = self.network.decode(posterior.sample()).sample - x
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        return error.abs().mean() + 0.5 * error.square().mean() + _KL_WEIGHT * kl

    def scores(self) -> dict[str, float]:
        """Return the reconstruction error, and the fraction of held-out scenes that still pass the exact
        checker."""
        images = scene_pool_images(draw_scene_pool(self.held_out))
        decoded = torch.cat(
            [self.network.decode(self.network.encode(x).latent_dist.mode()).sample for x in images.split(50)]
        )
        drawn = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        passed = [
            check_picture(picture, pair.spec).all for picture, pair in zip(drawn, self.held_out, strict=True)
        ]
        return {"mse": float((decoded - images).square().mean()), "all": sum(passed) / len(passed)}

    def export(self, folder: Path) -> None:
        """Write an `AutoencoderKL` folder with its scaling factor."""
        with torch.no_grad():
            latents = torch.cat([
                self.network.encode(scene_pool_images(x)).latent_dist.sample()
                for x in self.images[:2000].split(50)
            ])  # fmt: skip
        self.network.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
        self.network.half().save_pretrained(folder)
        self.network.float()
