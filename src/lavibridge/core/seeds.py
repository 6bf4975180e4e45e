"""What a seed may be: a whole number that torch's generators take."""

MOST_SEED = 2**64 - 1
