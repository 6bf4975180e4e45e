"""Detectors of things in pictures, a file for each way that networks are asked; the file name is the kind."""
