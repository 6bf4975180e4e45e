"""Blind user studies: pictures of runs side by side, people's votes, and their statistics."""
