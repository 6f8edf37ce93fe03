"""Random streams with names: one generator per (seed, purpose, visit, detector).

What a stream yields depends on its key alone, so a visit rendered alone, in another order or in another process has
the same pixels.
"""

from hashlib import blake2b

import numpy as np


def stream(seed: int, purpose: str, visit: int = 0, detector: int = 0) -> np.random.Generator:
    """The generator of one purpose; equal keys give equal numbers on every machine.

    Examples
    --------
    >>> a, b = stream(1, "noise", 7, 2), stream(1, "noise", 7, 2)
    >>> bool(a.normal() == b.normal())
    True
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    word = int.from_bytes(blake2b(purpose.encode(), digest_size=8).digest(), "little")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, word, visit, detector])))
