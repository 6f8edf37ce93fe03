"""Measurement of detected sources: detections to MEASUREMENT rows."""

import numpy as np

from pipeline.images import Calibrated, Detections, Template
from pipeline.measure.centroid import centre
from pipeline.measure.dipole import fit_dipoles
from pipeline.measure.flags import bbox_size, quality_cut, set_flags
from pipeline.measure.flux import PsfModel, force
from pipeline.measure.shapes import aperture, shape
from pipeline.measure.trail import fit_trails
from pipeline.pixel_config import MeasureConfig
from schemas.measures import MEASUREMENT, empty

__all__ = ["measure", "quality_cut"]


def measure(detections: Detections, science: Calibrated, template: Template, config: MeasureConfig) -> np.ndarray:
    """MEASUREMENT rows, one per peak, in the order of `detections.peaks`; `template` lies on the science grid."""
    difference, peaks = detections.difference, detections.peaks
    rows = empty(MEASUREMENT, len(peaks))
    rows["id"] = np.arange(len(rows))
    rows["peak_x"], rows["peak_y"], rows["snr"] = peaks["x"], peaks["y"], np.abs(peaks["snr"])
    rows["isNegative"] = peaks["negative"] & ~peaks["positive"]
    for name in ("x0", "y0", "x1", "y1"):
        rows[f"bbox_{name}"] = peaks[name]
    rows["footprint_area"], rows["sky_source"] = peaks["area"], peaks["sky_source"]
    model = PsfModel.of(difference.psf)
    centre(rows, detections, model)
    set_flags(rows, detections)
    shape(rows, detections)
    if config.fit_dipoles:
        fit_dipoles(rows, detections, science, model)
    if config.fit_trails:
        fit_trails(rows, detections, model)
    else:
        rows["trail_flag"] = True
    _images(rows, science, template)
    aperture(rows, detections)
    rows["bboxSize"] = bbox_size(rows)
    set_flags(rows, detections)
    return rows


def _images(rows: np.ndarray, science: Calibrated, template: Template) -> None:
    """Fill PSF fluxes of the science image and of the template at the centroids, in place."""
    for prefix, image, psf in (("science", science, science.psf), ("template", template, template.psf)):
        found = force(image.image, image.variance, image.mask, PsfModel.of(psf), rows["x"], rows["y"])
        rows[f"{prefix}Flux"], rows[f"{prefix}FluxErr"] = found.flux, found.error
        if prefix == "science":
            rows["forced_PsfFlux_flag_edge"], rows["forced_PsfFlux_flag_noGoodPixels"] = found.edge, found.empty
            rows["forced_PsfFlux_flag"] = found.empty | ~np.isfinite(found.flux)
