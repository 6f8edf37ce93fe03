"""A detector-visit's pixels kept for forced photometry: in memory, or in a scratch folder mapped into memory.

Both answer `force(ra, dec)`. The folder is what crosses from a worker to its parent: a path and two small PSFs instead
of six planes. It is deleted by `close()`. Of the masks it keeps what forced photometry asks of them: which pixels take
no part.
"""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np

from pipeline.images import Calibrated, Difference
from pipeline.measure.flux import BAD_PIXELS, PsfModel, force
from pipeline.psf import Psf
from schemas.measures import FORCED, empty
from schemas.wcs import Wcs

_IMAGES: Final = ("difference", "difference_variance", "science", "science_variance")
_MASKS: Final = ("difference_bad", "science_bad")   # a bit per pixel


@dataclass(frozen=True, slots=True)
class Planes:
    """A difference and what forced photometry on it needs."""

    image: np.ndarray        # (ny, nx) float32 [nJy]
    variance: np.ndarray     # (ny, nx) float32 [nJy^2]
    bad: np.ndarray          # (ny, nx) bool: takes no part in a fit
    psf: Psf
    noise_scale: float
    wcs: Wcs


@dataclass(frozen=True, slots=True)
class PixelsInMemory:
    """`Pixels` of images that are at hand."""

    difference: Difference
    science: Calibrated
    wcs: Wcs

    def force(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """FORCED rows: PSF fluxes at sky positions [deg]; NaN off the image."""
        difference, science = self.difference, self.science
        return _force((difference.image, difference.variance, difference.mask, science.image, science.variance,
                       science.mask), difference.psf, science.psf, difference.noise_scale, self.wcs, ra, dec)

    def planes(self) -> Planes:
        """The difference, to be kept when these pixels go."""
        d = self.difference
        return Planes(d.image, d.variance, (d.mask & BAD_PIXELS) != 0, d.psf, d.noise_scale, self.wcs)

    def close(self) -> None:
        """Nothing to let go: the images belong to whoever made them."""


@dataclass(frozen=True, slots=True)
class PixelsOnDisk:
    """`Pixels` of images in a scratch folder; small enough to send to another process."""

    folder: Path
    difference_psf: Psf
    science_psf: Psf
    noise_scale: float
    wcs: Wcs

    @classmethod
    def write(cls, folder: Path, difference: Difference, science: Calibrated, wcs: Wcs, *,
              exist_ok: bool = False) -> Self:
        """Put the planes into a new folder; FileExistsError where it exists and that is not `exist_ok`."""
        folder.mkdir(parents=True, exist_ok=exist_ok)
        images = (difference.image, difference.variance, science.image, science.variance)
        masks = (np.packbits((mask & BAD_PIXELS) != 0) for mask in (difference.mask, science.mask))
        for name, plane in zip((*_IMAGES, *_MASKS), (*images, *masks), strict=True):
            np.save(folder / f"{name}.npy", plane, allow_pickle=False)
        return cls(folder, difference.psf, science.psf, difference.noise_scale, wcs)

    def force(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """FORCED rows: PSF fluxes at sky positions [deg]; NaN off the image."""
        difference, difference_variance, science, science_variance = (
            np.load(self.folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in _IMAGES)
        difference_mask, science_mask = (self._mask(name, difference.shape) for name in _MASKS)
        return _force((difference, difference_variance, difference_mask, science, science_variance, science_mask),
                      self.difference_psf, self.science_psf, self.noise_scale, self.wcs, ra, dec)

    def _mask(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A mask with BAD set, which is 1, where any of `BAD_PIXELS` was."""
        bits = np.load(self.folder / f"{name}.npy", allow_pickle=False)
        return np.unpackbits(bits, count=math.prod(shape)).reshape(shape).astype(np.int32)

    def planes(self) -> Planes:
        """The difference, to be kept when these pixels go."""
        image, variance = (np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                           for name in _IMAGES[:2])
        return Planes(image, variance, self._mask(_MASKS[0], image.shape) != 0, self.difference_psf, self.noise_scale,
                      self.wcs)

    def close(self) -> None:
        """Delete the folder; again is harmless."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _force(planes: tuple[np.ndarray, ...], difference_psf: Psf, science_psf: Psf, noise_scale: float, wcs: Wcs,
           ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    x, y = (np.atleast_1d(c) for c in wcs.pixels(np.asarray(ra, float), np.asarray(dec, float)))
    rows = empty(FORCED, len(x))
    rows["x"], rows["y"] = x, y
    ny, nx = planes[0].shape
    inside = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    rows["inside"], rows["flag_noGoodPixels"], rows["flag_edge"] = inside, ~inside, ~inside
    at = x[inside], y[inside]
    for images, psf, column, scale in ((planes[:3], difference_psf, "psfFlux", noise_scale),
                                       (planes[3:], science_psf, "scienceFlux", 1.0)):
        found = force(images[0], images[1], images[2], PsfModel.of(psf), *at, noise_scale=scale)
        rows[column][inside], rows[f"{column}Err"][inside] = found.flux, found.error
        rows["flag_edge"][inside] |= found.edge
        rows["flag_noGoodPixels"][inside] |= found.empty
    return rows
