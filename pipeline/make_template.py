"""A template from exposures: each calibrated and put aside, the best chosen, those coadded.

    exposures -> calibrate, one at a time -> files of planes -> select by seeing -> grid -> coadd in strips

Memory is that of one calibration, or of the template and a strip of all visits, however many there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.calibrate import calibrate
from pipeline.errors import AlgorithmError, InputError, NoWorkFound
from pipeline.images import Calibrated, Template
from pipeline.pixel_config import CalibrateConfig, TemplateConfig
from pipeline.stored import stored
from pipeline.template import Quality, coadd, select
from schemas.exposure import Exposure
from schemas.wcs import Wcs

LARGEST: Final = 20_000       # [pixel] side of a grid that is made without being asked for


@dataclass(frozen=True, slots=True)
class Source:
    """An exposure that can be had when its turn comes."""

    name: str
    read: Callable[[], Exposure]


@dataclass(frozen=True, slots=True)
class Made:
    """A template, and what became of the exposures."""

    template: Template
    used: tuple[str, ...]         # names, the sharpest first
    unused: tuple[str, ...]       # calibrated and not chosen
    lost: tuple[str, ...]         # with the reason


def make_template(sources: Sequence[Source], references: Callable[[Exposure], np.ndarray], scratch: Path,
                  calibration: CalibrateConfig, config: TemplateConfig, *, band: str = "",
                  given_zeropoint: float = np.nan, like: Exposure | None = None) -> Made:
    """The template of the exposures of one band.

    `references` gives REFERENCE rows around an exposure; `like` has the grid to use, otherwise one is laid round all
    chosen exposures, upright on the sharpest. InputError where exposures of several bands leave open which is meant,
    where none can be used, or where they lie too far apart for one grid.
    """
    inputs, names, lost, bands = [], [], [], set()
    for source in sources:
        exposure = source.read()
        bands.add(exposure.visit.band)
        if band and exposure.visit.band != band:
            continue
        if len(bands) > 1 and not band:
            raise InputError(f"{source.name}: band {exposure.visit.band}, an earlier exposure's is "
                             f"{min(bands - {exposure.visit.band})}; a template has one band: choose it with --band")
        try:
            found = calibrate(exposure, references(exposure), calibration, given_zeropoint=given_zeropoint)
        except AlgorithmError as error:
            lost.append(f"{source.name}: {error}")
            continue
        inputs.append(stored(found, scratch))
        names.append(source.name)
    if band and band not in bands:
        raise InputError(f"band {band}: none of {len(sources)} exposures has it; "
                         f"there are {', '.join(sorted(bands)) or 'none at all'}")
    if not inputs:
        raise InputError(f"no exposure can be used: {'; '.join(lost) or 'none given'}")
    chosen = _chosen(inputs, config)
    if not chosen:
        sharpest = min(_fwhm(c) for c in inputs)
        raise InputError(f"no exposure is good enough: {len(inputs)} of FWHM {sharpest:.2f} arcsec and more; asked for "
                         f"are max_fwhm_arcsec {config.max_fwhm_arcsec} and min_zeropoint_scale "
                         f"{config.min_zeropoint_scale}")
    kept = [inputs[i] for i in chosen]
    wcs, shape = grid(kept) if like is None else (like.wcs, like.shape)
    try:
        template = coadd(kept, wcs, shape, config)
    except NoWorkFound as error:
        raise InputError(str(error)) from None
    return Made(template, tuple(names[i] for i in chosen),
                tuple(name for i, name in enumerate(names) if i not in set(chosen)), tuple(lost))


def _fwhm(calibrated: Calibrated) -> float:
    return calibrated.psf.fwhm(calibrated.wcs.scale_arcsec)


def _chosen(inputs: Sequence[Calibrated], config: TemplateConfig) -> list[int]:
    """Which exposures belong to the chosen visits, the sharpest visit first; a visit stands or falls as a whole."""
    of_visit: dict[int, list[int]] = {}
    for i, c in enumerate(inputs):
        of_visit.setdefault(c.visit.visit, []).append(i)
    groups = list(of_visit.values())
    clear = [float(np.mean([inputs[i].calibration.zeropoint for i in g])) for g in groups]
    # transparency squared against the clearest visit; the same for all where zeropoints are given
    qualities = [Quality(float(np.mean([_fwhm(inputs[i]) for i in g])), 10 ** (0.8 * (z - max(clear))))
                 for g, z in zip(groups, clear, strict=True)]
    return [i for g in select(qualities, config) for i in groups[g]]


def grid(inputs: Sequence[Calibrated]) -> tuple[Wcs, tuple[int, int]]:
    """A tangent plane that holds every exposure, with the scale of the first and along its axes."""
    first = inputs[0]
    middle = (first.shape[1] - 1) / 2, (first.shape[0] - 1) / 2
    ra, dec = first.wcs.sky(*middle)
    plain = Wcs.tangent(float(ra), float(dec), (1, 1), scale_arcsec=first.wcs.scale_arcsec,
                        rotation=first.visit.rotation)
    x, y = [], []
    for c in inputs:
        ny, nx = c.shape
        edge = plain.pixels(*c.wcs.sky(np.array([-0.5, nx - 0.5, -0.5, nx - 0.5]),
                                       np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])))
        x.append(edge[0])
        y.append(edge[1])
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("the exposures lie on opposite sides of the sky: no grid holds them all; name one with --like")
    low = int(np.floor(np.min(x))), int(np.floor(np.min(y)))
    shape = int(np.ceil(np.max(y))) - low[1] + 1, int(np.ceil(np.max(x))) - low[0] + 1
    if max(shape) > LARGEST:
        raise InputError(f"the exposures spread over {shape[1]} x {shape[0]} pixels, at most {LARGEST} to a side are "
                         "laid out unasked; name the grid of one with --like")
    return plain.shifted(*low), shape
