"""Vision models: denoiser, autoencoder and noise schedule; one file is one family."""
