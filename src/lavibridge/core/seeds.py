"""The range of seeds, which are integers that torch's generators accept, and a hash of several numbers."""

import hashlib

MAX_SEED = 2**64 - 1


def mix_seeds(*numbers: int) -> int:
    """Hash several numbers to one seed, so that neighbouring numbers give unrelated seeds."""
    text = ",".join(str(number) for number in numbers)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
