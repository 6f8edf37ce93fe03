"""Difference images with everything known: white noise, and point sources, lobes and trails of given S/N.

    scene = Scene(seed=1, shape=(500, 500), fwhm=4.0)
    scene.points(x, y, snr)
    detections = detect(scene.difference(), scene.science(), DetectConfig())

S/N is flux over the error of a PSF fit in the background's noise.
"""

from dataclasses import dataclass, field

import numpy as np

from pipeline.images import Calibrated, Calibration, Difference, Template
from pipeline.psf import Psf
from schemas.exposure import Visit
from schemas.wcs import Wcs
from tests.pipeline.fields import profile, psf_stamp

SIGMA = 10.0       # noise per pixel [nJy]
SIDE = 41


@dataclass
class Scene:
    """Planes to paint on."""

    seed: int = 1
    shape: tuple[int, int] = (500, 500)
    fwhm: float = 4.0
    beta: float = 3.5
    ellipticity: float = 0.0
    noiseless: bool = False
    image: np.ndarray = field(init=False)
    mask: np.ndarray = field(init=False)
    variance: np.ndarray = field(init=False)
    before: np.ndarray = field(init=False)     # static sky, in the science image and in the template
    matched: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.image = np.zeros(self.shape) if self.noiseless else self.rng.normal(0, SIGMA, self.shape)
        self.mask = np.zeros(self.shape, np.int32)
        self.variance = np.full(self.shape, SIGMA**2, np.float32)
        self.before = np.zeros(self.shape)
        self.matched = np.zeros(self.shape)
        self.psf = Psf.constant(psf_stamp(SIDE, self.fwhm, self.beta, self.ellipticity), self.shape)
        self.error = SIGMA * np.sqrt(self.psf.effective_area)

    def draw(self, x: np.ndarray, y: np.ndarray, flux: np.ndarray) -> np.ndarray:
        """A noise-free plane of point sources."""
        out, half = np.zeros(self.shape), SIDE // 2 + 4
        for u, v, f in zip(*np.broadcast_arrays(x, y, flux), strict=True):
            left, low = round(float(u)) - half, round(float(v)) - half
            x0, x1 = max(left, 0), min(left + 2 * half + 1, self.shape[1])
            y0, y1 = max(low, 0), min(low + 2 * half + 1, self.shape[0])
            dx, dy = np.meshgrid(np.arange(x0, x1) - u, np.arange(y0, y1) - v)
            out[y0:y1, x0:x1] += f * profile(dx, dy, self.fwhm, self.beta, self.ellipticity)
        return out

    def grid(self, step: float, *, border: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
        """Jittered positions on a grid."""
        x, y = np.meshgrid(np.arange(border, self.shape[1] - border, step),
                           np.arange(border, self.shape[0] - border, step))
        return tuple(c.ravel() + self.rng.uniform(-0.5, 0.5, c.size) for c in (x, y))

    def points(self, x: np.ndarray, y: np.ndarray, snr: np.ndarray | float) -> np.ndarray:
        """Add point sources; their fluxes."""
        flux = np.broadcast_to(np.asarray(snr, float) * self.error, np.shape(x))
        self.image += self.draw(x, y, flux)
        return flux

    def moved(self, x: np.ndarray, y: np.ndarray, dx: np.ndarray, dy: np.ndarray, snr: np.ndarray) -> np.ndarray:
        """Add stars that moved from (x - dx/2, y - dy/2) to (x + dx/2, y + dy/2); the noise-free difference."""
        flux = np.asarray(snr) * self.error
        now, then = self.draw(x + dx / 2, y + dy / 2, flux), self.draw(x - dx / 2, y - dy / 2, flux)
        self.image += now - then
        self.before += now
        self.matched += then
        return now - then

    def trails(self, x: np.ndarray, y: np.ndarray, flux: np.ndarray, length: np.ndarray, angle: np.ndarray) -> None:
        """Add trails, as points 0.3 px apart; angle in radians."""
        for u, v, f, size, a in zip(x, y, flux, length, angle, strict=True):
            n = max(2, int(np.ceil(size / 0.3)))
            s = ((np.arange(n) + 0.5) / n - 0.5) * size
            self.image += self.draw(u + s * np.cos(a), v + s * np.sin(a), np.full(n, f / n))

    def difference(self, noise_scale: float = 1.0) -> Difference:
        return Difference(self.image.astype(np.float32), self.variance, self.mask, self.psf,
                          self.matched.astype(np.float32), self.variance, self.psf, noise_scale, 0.0, 10, 1.0)

    @property
    def wcs(self) -> Wcs:
        return Wcs.tangent(150.0, -30.0, self.shape)

    def science(self) -> Calibrated:
        found = Calibration(31.4, 0.0, SIGMA, 0, 0, 0, 0.0, 0.0, 0.0, 1.0, 0.0)
        visit = Visit(2026010100001, "r", 150.0, -30.0, 0.0, 61000.0, 30.0)
        image = self.before + (0 if self.before.any() else self.image)
        return Calibrated(visit, 0, image.astype(np.float32), self.variance, self.mask, self.psf, self.wcs,
                          np.zeros(0), found, 1.0, 1e9)

    def template(self) -> Template:
        return Template("r", self.matched.astype(np.float32), self.variance / 10, self.mask, self.psf, self.wcs,
                        np.ones(self.shape, np.int16))
