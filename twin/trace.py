"""What each Step left behind, in a few numbers: laid beside another run's they show where the two first part.

A tracer follows one detector-visit and looks at `Step.left`. Its values serve to be compared relative to
max(|value|, 1): units are chosen so that 1 is a scale that matters (arcsec, S/N, counts, noise variances), no sum runs
over both signs, and where a few values may be beyond measure (errors of a singular fit) the median stands for them.
Quantities `mask:PLANE` and `n:NAME` are counts that are zero where they are missing.

    calibrate   zeropoint, PSF, corners of the WCS, stars, variance, noise, mask planes
    warp        the template's mean, noise, coverage, PSF, mask planes
    subtract    noise of the difference, its variance, correlation, kernel sum, mask planes
    detect      peaks, their significance, noise, mask planes
    measure     sums of fluxes, lengths, shapes and flags over the sources
    cutouts     light in the middle of the stamps, their pixels
    reliability sum of the scores

The catalogue half's is `twin.trace_catalogue`: apart, because what the pixel half imports decides what its cached
results depend on.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

import numpy as np

from pipeline.images import Calibrated, Cutouts, Detections, Difference, Template
from pipeline.sphere import offsets_arcsec
from pipeline.steps import Step
from schemas import mask
from schemas.exposure import AB_ZEROPOINT_NJY
from schemas.measures import TRACE
from schemas.wcs import Wcs

STRIDE: Final = 3                      # of the pixels that medians and means are taken of, in x and y
SUMMED: Final = ("snr", "psfFlux", "apFlux", "scienceFlux", "templateFlux", "trailFlux", "trailLength",
                 "dipoleMeanFlux", "dipoleLength", "footprint_area", "bboxSize")   # of MEASUREMENT, as magnitudes
TYPICAL: Final = ("x", "y", "xErr", "yErr", "psfFluxErr", "ixx", "iyy", "extendedness")   # the median stands for them

Numbers = dict[str, float]


class Tracer:
    """The trace of one detector-visit, Step by Step; call it with each Step."""

    looks: ClassVar[Mapping[str, Callable[[Any, Any], Numbers]]] = {}

    def __init__(self, visit: int, detector: int, wcs: Wcs) -> None:
        self.wcs = wcs
        self._visit, self._detector = visit, detector
        self._numbers: dict[tuple[str, str], float] = {}

    def __call__(self, step: Step) -> None:
        """Note what a Step left; a Step done again is noted once, as it was in the end."""
        if step.name.startswith("retry."):
            return
        look = self.looks.get(step.name)
        found = {"size": float(step.size), **(look(self, step.left) if look and step.left is not None else {})}
        self._numbers |= {(step.name, name): float(value) for name, value in found.items()}

    def rows(self) -> np.ndarray:
        """TRACE rows of what has been noted."""
        rows = np.zeros(len(self._numbers), TRACE)
        rows["visit"], rows["detector"] = self._visit, self._detector
        for row, ((step, quantity), value) in zip(rows, self._numbers.items(), strict=True):
            row["step"], row["quantity"], row["value"] = step.encode(), quantity.encode()[:32], value
        return rows


class PixelTracer(Tracer):
    """Of the pixel half; `wcs` is the pointing's, relative to which the corners of the found one are told."""

    def _calibrate(self, science: Calibrated) -> Numbers:
        found = science.calibration
        ny, nx = science.shape
        x, y = np.meshgrid([0.0, (nx - 1) / 2, nx - 1.0], [0.0, (ny - 1) / 2, ny - 1.0])
        east, north = apart(science.wcs.sky(x.ravel(), y.ravel()), self.wcs.sky(x.ravel(), y.ravel()))
        corners = {f"wcs_{way}_{k}": value for way, values in (("east", east), ("north", north))
                   for k, value in enumerate(values[[0, 2, 4, 6, 8]])}
        light = float(np.abs(_thinned(science.image)).mean(dtype=float))
        return {"njy_per_adu": 10 ** (0.4 * (AB_ZEROPOINT_NJY - found.zeropoint)), "psf_sigma_px": science.psf.sigma,
                "psf_at_corner": 1 / float((science.psf.at(0.0, 0.0) ** 2).sum()), "stars": found.n_stars,
                "psf_stars": found.n_psf_star, "matches": found.n_matches, "sky_adu": found.sky_adu,
                "mean_light": light, "variance": median(_thinned(science.variance)),
                "noise_correlation": found.noise_correlation, **corners, **_planes(science.mask)}

    def _warp(self, template: Template) -> Numbers:
        covered = (_thinned(template.mask) & mask.NO_DATA) == 0
        image, variance = _thinned(template.image)[covered], _thinned(template.variance)[covered]
        return {"mean_light": np.abs(image).mean(dtype=float) if image.size else 0.0, "variance": median(variance),
                "inputs": _thinned(template.n_inputs).mean(), "psf_sigma_px": template.psf.sigma,
                **_planes(template.mask)}

    def _subtract(self, difference: Difference) -> Numbers:
        return {"kernel_sum": difference.kernel_sum, "noise_scale": difference.noise_scale,
                "noise_correlation": difference.lag1, "kernel_stars": difference.n_kernel_stars,
                "psf_sigma_px": difference.psf.sigma, "matched_variance": median(_thinned(difference.matched_variance)),
                **_noise(difference), **_planes(difference.mask)}

    def _detect(self, found: Detections) -> Numbers:
        return {"peaks": len(found.peaks), "significance": total(found.peaks["snr"]), "snr_rms": found.snr_rms,
                "footprint_px": total(found.peaks["area"]), "refused": len(found.rejected), **_noise(found.difference),
                **_planes(found.difference.mask)}

    def _measure(self, sources: np.ndarray) -> Numbers:
        flags = {f"n:{name}": float(np.count_nonzero(sources[name])) for name in sources.dtype.names or ()
                 if sources.dtype[name].kind == "b"}
        return {"n": len(sources), **{name: total(sources[name]) for name in SUMMED},
                **{name: median(sources[name]) for name in TYPICAL}, **counted(flags)}

    def _cutouts(self, stamps: Iterable[Cutouts]) -> Numbers:
        numbers: Numbers = {}
        for kind, cutouts in zip(("science", "template", "difference"), stamps, strict=True):
            middles = [image[image.shape[0] // 2, image.shape[1] // 2] for image in cutouts.image]
            numbers |= {f"{kind}_light": total(np.array(middles)), f"{kind}_px": sum(i.size for i in cutouts.image)}
        return numbers

    def _reliability(self, sources: np.ndarray) -> Numbers:
        return {"score": total(sources["reliability"]), "scored": int(np.isfinite(sources["reliability"]).sum())}

    looks: ClassVar = {"calibrate": _calibrate, "inject": _calibrate, "warp": _warp, "subtract": _subtract,
                       "detect": _detect, "measure": _measure, "cutouts": _cutouts, "reliability": _reliability}


def _thinned(plane: np.ndarray) -> np.ndarray:
    return plane[::STRIDE, ::STRIDE]


def median(values: np.ndarray) -> float:
    """The median of the known values, 0 without any."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else 0.0


def total(values: np.ndarray) -> float:
    """The sum of the magnitudes of the known values."""
    values = np.abs(np.asarray(values, float))
    return float(values[np.isfinite(values)].sum())


def mean(values: np.ndarray) -> float:
    """The mean of the known values, 0 without any."""
    values = np.asarray(values, float)
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else 0.0


def _noise(difference: Difference) -> Numbers:
    """Light of a difference in units of its noise, and the noise."""
    good = (_thinned(difference.mask) & mask.UNUSABLE) == 0
    image, variance = _thinned(difference.image)[good], _thinned(difference.variance)[good]
    known = np.isfinite(image) & (variance > 0)
    pulls = np.abs(image[known]) / np.sqrt(variance[known])
    return {"mean_pull": mean(pulls), "rms_pull": float(np.sqrt(mean(np.minimum(pulls, 100.0) ** 2))),
            "variance": median(variance)}


def _planes(bits: np.ndarray) -> Numbers:
    """Pixels in each mask plane, of those that have any."""
    counts = np.bincount(bits.ravel(), minlength=1)
    found = np.flatnonzero(counts)
    return counted({f"mask:{name}": float(counts[found[found & bit != 0]].sum()) for name, bit in mask.PLANES.items()})


def counted(counts: Numbers) -> Numbers:
    """Without those that are zero."""
    return {name: count for name, count in counts.items() if count}


def apart(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """East and North of `a` from `b` [arcsec]."""
    return offsets_arcsec(*b, *a)


__all__ = ["PixelTracer", "Tracer"]
