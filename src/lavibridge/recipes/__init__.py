"""Recipes: everything that defines a run, in one flat YAML file."""
