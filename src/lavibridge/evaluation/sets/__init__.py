"""Distances between sets of pictures: features, reference sets and estimators."""
