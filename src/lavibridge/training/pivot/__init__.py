"""Trains the halves of a pivot; every stage needs only captions.

create         aligns a bridge, and so trains a language half and a vision half together: they define Z
add_vision     aligns a bridge with a frozen language half, and so trains a vision half
add_language   trains a language half by regression on the first one's slots; loads no vision model
"""
