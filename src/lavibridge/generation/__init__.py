"""Generates images: prompts, denoising with Diffusers' schedulers, image files and contact sheets."""
