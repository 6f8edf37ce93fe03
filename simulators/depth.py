"""The depth that schedulers predict for a visit: SMTN-002's formula, in the form that visit tables hold."""

from typing import Final

import numpy as np

from simulators.conditions import BANDS, DARK_SKY, K_ATM

CM: Final = dict(zip(BANDS, (22.967681, 24.582309, 24.602134, 24.541152, 24.371077, 23.840175), strict=True))
DCM_INFINITY: Final = dict(zip(BANDS, (0.543325, 0.088310, 0.043438, 0.027510, 0.018530, 0.016283), strict=True))
# syseng_throughputs v1.9, triple silver (rubin_scheduler's SysEngVals)


def depth(band: str, sky_mag: np.ndarray | float, fwhm_eff: np.ndarray | float, airmass: np.ndarray | float,
          exposure_s: float = 30.0, snaps: int = 1) -> np.ndarray:
    """AB magnitude of a point source at S/N 5 [mag]; the exposure is taken in `snaps` equal parts."""
    part_s = exposure_s / snaps
    scale = part_s / 30.0 * 10 ** (-0.4 * (np.asarray(sky_mag, float) - DARK_SKY[band]))
    infinity = DCM_INFINITY[band]
    correction = infinity - 1.25 * np.log10(1.0 + (10 ** (0.8 * infinity) - 1.0) / scale)
    single = (CM[band] + correction + 0.5 * (np.asarray(sky_mag, float) - 21.0)
              + 2.5 * np.log10(0.7 / np.asarray(fwhm_eff, float)) + 1.25 * np.log10(part_s / 30.0)
              - K_ATM[band] * (np.asarray(airmass, float) - 1.0))
    return np.asarray(single + 1.25 * np.log10(snaps))
