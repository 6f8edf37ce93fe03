"""Type Ia supernovae: a spectral series seen through the bands at any redshift, stretched, reddened and scaled.

Its table (5 nm, 1.25 d) gives sncosmo's fluxes of the same series to 0.004 mag rms, 0.034 at worst, of 1,300 phases
from 15 d before maximum to 80 after at redshifts to 1.2. Earlier, under 1 % of the maximum, sncosmo's spline through
phases 5 d apart is no better known than to tenths.
"""

from functools import cache
from importlib import resources
from typing import Final

import numpy as np

from simulators.lightcurves.tables import BandTable, redshifts
from simulators.passbands import STEP_NM, WAVELENGTHS_NM, weights

SN_IA: Final = np.dtype([("z", "f8"), ("peak", "f8"),      # time of B maximum [MJD]
                         ("flux", "f8"),                   # [nJy] 10^(-0.4 (M_B + distance modulus - 31.4))
                         ("stretch", "f8"), ("dim", "f8", (6,))])
Z_MAX: Final = 1.6
Z_NODES: Final = 121
LAST_PHASE: Final = 85.0
DECLINE_D: Final = 70.0            # e-folding time after the series ends, that of nebular spectra: about 0.0155 mag/d

# B of Bessell 1990 (PASP 102, 1181) from 360 to 560 nm in steps of 10 nm; the absolute magnitudes are AB in it
BESSELL_B: Final = np.array([0.0, 0.030, 0.134, 0.567, 0.920, 0.978, 1.0, 0.978, 0.935, 0.853, 0.740, 0.640, 0.536,
                             0.424, 0.325, 0.235, 0.150, 0.095, 0.043, 0.009, 0.0])


@cache
def spectra() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phases [day], wavelengths [nm] and f_nu in arbitrary units, (phases, wavelengths)."""
    text = (resources.files("simulators.lightcurves") / "sn_ia.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    cells = np.array([float(word) for word in lines[0].split(",")[1:]])
    numbers = np.array([[float(word) for word in line.split(",")] for line in lines[1:]])
    return numbers[:, 0], cells, 10.0 ** (numbers[:, 1:] / 1000.0) * cells**2


@cache
def band_table() -> BandTable:
    """Band fluxes over those of B at maximum in the rest frame, (1 + z) included."""
    phases, cells, flux = spectra()
    rest = np.arange(360.0, 560.0 + 1e-9, STEP_NM)
    b_weight = np.interp(rest, np.arange(360.0, 561.0, 10.0), BESSELL_B) / rest
    top = np.interp(rest, cells, flux[int(np.argmin(np.abs(phases)))])
    maximum = float(np.sum(b_weight * top) / np.sum(b_weight))
    nodes = redshifts(Z_MAX, Z_NODES)
    seen = np.empty((6, len(phases), len(nodes)))
    for k, z in enumerate(nodes):
        shifted = np.array([np.interp(WAVELENGTHS_NM / (1.0 + z), cells, row) for row in flux])
        seen[:, :, k] = (1.0 + z) * weights() @ shifted.T / maximum
    return BandTable(np.log10(np.maximum(seen, 1e-12)), (float(phases[0]), float(phases[-1])), Z_MAX)


def sn_ia_flux(rows: np.ndarray, band: int, mjd: float) -> np.ndarray:
    """(n,) fluxes [nJy] of SN_IA rows; 0 before 20 days of the rest frame before maximum."""
    phase = (mjd - rows["peak"]) / (1.0 + rows["z"]) / rows["stretch"]
    seen = band_table().at(band, phase, rows["z"]) * rows["dim"][:, band] * rows["flux"]
    late = np.exp(-np.maximum(phase - LAST_PHASE, 0.0) / DECLINE_D)
    return np.asarray(np.where(phase < -20.0, 0.0, seen * late))
