"""From noise to pictures: sampling with Diffusers' schedulers, files and contact sheets."""
