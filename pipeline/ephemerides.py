"""An ephemeris port that reads EPHEMERIS rows at hand."""

from dataclasses import dataclass

import numpy as np

from schemas.exposure import Box

MARGIN_ARCSEC = 750.0    # 0.208 deg = 10 deg/day for 30 min, as MPSky's query radius is padded


@dataclass(frozen=True, slots=True)
class TableEphemerides:
    """Known Solar System objects from a table, near a box at a time."""

    rows: np.ndarray                 # EPHEMERIS

    def near(self, box: Box, mjd_tai: float) -> np.ndarray:
        """Rows whose polynomials hold then and whose position lies in the padded box."""
        rows = self.rows[np.abs(mjd_tai - self.rows["epoch_mjd_tai"]) <= self.rows["half_span_d"]]
        if not len(rows):
            return np.asarray(rows)
        s = (mjd_tai - rows["epoch_mjd_tai"]) / rows["half_span_d"]
        xyz = np.einsum("nik,nk->ni", rows["object_xyz"], s[:, None] ** np.arange(rows["object_xyz"].shape[2]))
        ra = np.degrees(np.arctan2(xyz[:, 1], xyz[:, 0])) % 360.0
        dec = np.degrees(np.arctan2(xyz[:, 2], np.hypot(xyz[:, 0], xyz[:, 1])))
        return np.asarray(rows[padded(box).contains(ra, dec)])


def padded(box: Box) -> Box:
    """The box and what may move into it."""
    span = box.ra_max - box.ra_min if box.ra_max >= box.ra_min else box.ra_max - box.ra_min + 360.0
    middle = box.ra_min + span / 2
    if span > 170.0:
        return Box(0.0, 360.0, box.dec_min - MARGIN_ARCSEC / 3600, box.dec_max + MARGIN_ARCSEC / 3600)
    ra = np.array([box.ra_min, middle, box.ra_min + span])
    return Box.around(np.repeat(ra, 2), np.tile([box.dec_min, box.dec_max], 3), MARGIN_ARCSEC)
