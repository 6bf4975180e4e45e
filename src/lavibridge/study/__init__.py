"""Studies: a grid of recipes in, trained and measured cells out, and one table with intervals."""
