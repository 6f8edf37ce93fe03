"""Every pixel's cause: what each class of source and artifact adds to an image, so that the parts make the whole."""

import numpy as np


class Ledger:
    """What each cause added to an image, as differences of its successive states; silent until asked to keep them."""

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep
        self.maps: dict[str, np.ndarray] = {}      # (ny, nx) float64 [e]
        self._last = np.zeros((0, 0))

    def start(self, image: np.ndarray) -> None:
        """The state before the first cause."""
        if self.keep:
            self._last = image.copy()

    def note(self, cause: str, image: np.ndarray) -> None:
        """The state after a cause: what changed is its."""
        if not self.keep:
            return
        change = image - self._last
        if change.any():
            self.maps[cause] = self.maps.get(cause, 0.0) + change
        self._last = image.copy()


def dominant(maps: dict[str, np.ndarray], over_e: float) -> tuple[list[str], np.ndarray]:
    """(names, (ny, nx) int16): the cause that changes each pixel most, -1 where none changes it by `over_e`.

    The sky and both noises are everywhere and do not compete.
    """
    names = [name for name in maps if name not in ("sky", "photon noise", "read noise")]
    if not names:
        shape = next(iter(maps.values())).shape
        return [], np.full(shape, -1, np.int16)
    best, strongest = np.full(maps[names[0]].shape, -1, np.int16), np.full(maps[names[0]].shape, float(over_e))
    for k, name in enumerate(names):
        size = np.abs(maps[name])
        best[size > strongest] = k
        np.maximum(strongest, size, out=strongest)
    return names, best
