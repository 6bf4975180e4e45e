"""Optimisers of the trained weights, one file per kind."""
