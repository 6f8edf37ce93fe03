"""Planes kept in files, so that what is made of many exposures needs the memory of one."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from pipeline.images import Calibrated


@dataclass(frozen=True, slots=True)
class StoredPlane:
    """An array in a file of its own: slices are read when they are asked for, and belong to who asked."""

    path: Path
    shape: tuple[int, ...]

    @classmethod
    def write(cls, path: Path, plane: np.ndarray) -> "StoredPlane":
        """Put an array into a file."""
        np.save(path, plane, allow_pickle=False)
        return cls(path, plane.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return np.array(mapped[key])


def stored(calibrated: Calibrated, folder: Path) -> Calibrated:
    """The same exposure with its planes in a folder, to be read in slices alone."""
    name = f"{calibrated.visit.visit}_{calibrated.detector}"
    image, variance, mask = (cast(np.ndarray, StoredPlane.write(folder / f"{name}_{plane}.npy",
                                                                getattr(calibrated, plane)))
                             for plane in ("image", "variance", "mask"))
    return replace(calibrated, stars=calibrated.stars[:0], image=image, variance=variance, mask=mask)
