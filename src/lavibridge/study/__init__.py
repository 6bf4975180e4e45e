"""Studies: train and evaluate a grid of recipes, and report one table with intervals."""
