"""Randomness is keyed: every draw is a function of (seed, epoch, object id, step), never of who draws it or when.

So the number of workers and processes, shuffling and resumption cannot change what a batch contains.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np


def rng(*key: int) -> np.random.Generator:
    """A generator that depends on the integers of the key alone, e.g. `rng(seed, epoch, object_id, step)`."""
    digest = hashlib.blake2b(struct.pack(f"<{len(key)}q", *key), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, np.uint64)))


def seed_of(*key: int) -> int:
    """The same as a 31-bit seed, for libraries that want one."""
    return int(rng(*key).integers(2**31))
