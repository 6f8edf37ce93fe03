"""The difference image of one detector-visit with the notes of its making: dear to compute, and kept by the cache.

What is imported here decides what a kept one depends on: nothing of detection and measurement.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.images import Calibrated, Difference, Template
from pipeline.pixel_config import PixelConfig
from pipeline.subtraction import difference_image
from schemas.exposure import Exposure
from twin.noting import Notes, Worked


@dataclass(frozen=True, slots=True)
class Differenced:
    """A difference image, and what making it took."""

    difference: Difference
    steps: tuple[Worked, ...]
    trace: np.ndarray            # TRACE


def make_difference(exposure: Exposure, science: Calibrated, template: Template, config: PixelConfig) -> Differenced:
    """Take the template off the science image; AlgorithmError where that is not possible."""
    notes = Notes(exposure.visit.visit, exposure.detector, exposure.wcs)
    difference = notes.run(difference_image(science, template, config))
    return Differenced(difference, notes.steps, notes.trace)
