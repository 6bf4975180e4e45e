"""Weightings of the diffusion loss over timesteps, one file per kind."""
