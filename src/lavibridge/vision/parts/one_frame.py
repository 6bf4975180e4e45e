"""The shared base of the families whose autoencoder compresses videos: an image is a video of one frame."""

from jaxtyping import Float
from torch import Tensor

from lavibridge.vision.hf import DiffusersModel


class OneFrameModel(DiffusersModel):
    """A denoiser of images with an AutoencoderKLQwenImage or AutoencoderKLWan."""

    def _encoded(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]:
        latents = self.autoencoder.encode(images[:, :, None]).latent_dist
        return latents.mean[:, :, 0], latents.std[:, :, 0]

    def _decoded(self, latents: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch 3 height width"]:
        return self.autoencoder.decode(latents[:, :, None], return_dict=False)[0][:, :, 0]

    def _depth(self) -> int:
        return len(self.autoencoder.config.temperal_downsample) + 1

    def _channels(self) -> int:
        return int(self.autoencoder.config.z_dim)
