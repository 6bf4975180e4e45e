"""Distributions of the training timesteps, one file per kind."""
