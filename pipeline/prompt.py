"""A night's science on one page: preload, the pixel half, the catalogue half, delivery.

    preload        at nextVisit: what is known of the field
    measure_sources  the pixel half: pure, no clock, no port; exposure to measured, scored sources with their cutouts
    report_sources   the catalogue half: filters, transformation, association, forced photometry, packets, save
    deliver        the outbox to the broker
"""

from dataclasses import dataclass

import numpy as np

from pipeline.config import PipelineConfig
from pipeline.images import Calibration, Cutouts, Template
from pipeline.ports import History, Pixels
from pipeline.steps import Steps
from schemas.exposure import Box, Exposure, Visit
from schemas.wcs import Wcs


@dataclass(frozen=True, slots=True)
class Static:
    """What preload brings for the pixels; frozen for a run."""

    template: Template | None          # on its own grid; None where none exists: no work
    references: np.ndarray             # REFERENCE; empty: WCS and zeropoint are taken as given
    injections: np.ndarray | None = None   # INJECTION rows to add after calibration
    given_zeropoint: float = 31.4      # where there are no references


@dataclass(frozen=True, slots=True)
class Known:
    """What preload brings for the catalogues."""

    objects: np.ndarray                # DiaObject
    history: History
    ephemerides: np.ndarray            # EPHEMERIS; empty without the service


@dataclass(frozen=True, slots=True)
class Measured:
    """What the pixel half yields."""

    visit: Visit
    detector: int
    sources: np.ndarray                # MEASUREMENT, scored, unfiltered
    wcs: Wcs
    shape: tuple[int, int]
    box: Box                           # the detector on the sky
    calibration: Calibration
    science: Cutouts                   # one stamp per source, of side bboxSize clamped to 30..102
    template: Cutouts
    difference: Cutouts
    pixels: Pixels                     # kept for forced photometry
    log: np.ndarray                    # EXPOSURE_LOG, one row: what the pixel half knows of it


@dataclass(frozen=True, slots=True)
class Summary:
    """The outcome of one detector-visit."""

    visit: int
    detector: int
    n_detected: int
    n_sources: int
    n_new_objects: int
    n_alerts: int
    rejections: np.ndarray             # REJECTION
