"""Samplers, a file each: a new one is a new file, and no list is edited."""
