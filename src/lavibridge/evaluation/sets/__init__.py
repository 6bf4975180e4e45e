"""Distances between sets of images: features, reference sets and estimators."""
