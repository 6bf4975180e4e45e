"""What a seed may be: a whole number that torch's generators take."""

MAX_SEED = 2**64 - 1
