"""The range of seeds: integers that torch's generators accept."""

MAX_SEED = 2**64 - 1
