"""Distances between sets of pictures: features, references, and the mathematics."""
