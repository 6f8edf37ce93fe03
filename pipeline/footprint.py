"""A detector's footprint on the sky."""

import numpy as np

from schemas.exposure import Box
from schemas.wcs import Wcs

PRELOAD_MARGIN_ARCSEC = 50.1   # padding of the predicted footprint in production (phalanx, prompt-keda-lsstcam)


def footprint_box(wcs: Wcs, shape: tuple[int, int], margin_arcsec: float = 0.0) -> Box:
    """The box on the sky around a detector's border."""
    edge = np.linspace(-0.5, 0.5, 9)
    x, y = np.meshgrid(edge * shape[1] + (shape[1] - 1) / 2, edge * shape[0] + (shape[0] - 1) / 2)
    ra, dec = wcs.sky(x, y)
    return Box.around(ra.ravel(), dec.ravel(), margin_arcsec)
