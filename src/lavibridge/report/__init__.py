"""Turns run folders into one self-contained HTML page."""
