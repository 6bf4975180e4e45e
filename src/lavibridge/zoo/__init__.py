"""Pretrains the shipped miniature models again, with plain training of the real classes."""
