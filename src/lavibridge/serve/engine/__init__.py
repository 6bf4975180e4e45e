"""Turns requests into images: a bounded queue, and one thread that generates many images at a time."""
