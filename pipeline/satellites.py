"""The satellite allow-list from a table of predicted tracks: the deployed service's geometry without its catalogue.

A source is refused when the box of its footprint meets a track, a great-circle segment widened by a fixed width
(sattle: 0.01 deg). In a gnomonic projection about the source great circles are straight lines.
"""

from dataclasses import dataclass

import numpy as np

from schemas.exposure import Visit

TRACK_WIDTH_DEG = 0.01   # sattle's track_width


@dataclass(frozen=True, slots=True)
class TrackSatellites:
    """An allow-list port that reads TRACK rows; without rows everything is allowed."""

    tracks: np.ndarray               # TRACK
    width_deg: float = TRACK_WIDTH_DEG

    def allowed(self, visit: Visit, detector: int, ids: np.ndarray, corners: np.ndarray) -> np.ndarray:
        """The ids whose footprint boxes, given by sky corners (n, 4, 2) [deg], meet no track of this visit."""
        rows = self.tracks[self.tracks["visit"] == visit.visit]
        hit = np.zeros(len(ids), bool)
        if len(ids):
            for row in rows:
                hit |= _meets(corners, row, self.width_deg / 2)
        return np.asarray(ids)[~hit]


def _meets(corners: np.ndarray, track: np.void, half_width_deg: float) -> np.ndarray:
    ra0, dec0 = corners[:, 0, 0], corners[:, 0, 1]
    polygon = np.stack(_gnomonic(corners[..., 0], corners[..., 1], ra0[:, None], dec0[:, None]), axis=-1)
    start = np.stack(_gnomonic(track["ra0"], track["dec0"], ra0, dec0), axis=-1)
    end = np.stack(_gnomonic(track["ra1"], track["dec1"], ra0, dec0), axis=-1)
    direction = end - start
    length2 = np.maximum(np.sum(direction**2, axis=1), 1e-30)
    along = np.clip(np.einsum("nkd,nd->nk", polygon - start[:, None], direction) / length2[:, None], 0.0, 1.0)
    gap = polygon - (start[:, None] + along[..., None] * direction[:, None])
    near = np.hypot(gap[..., 0], gap[..., 1]).min(axis=1) <= half_width_deg
    side = direction[:, None, 0] * (polygon[..., 1] - start[:, None, 1]) \
        - direction[:, None, 1] * (polygon[..., 0] - start[:, None, 0])
    straddles = (side.min(axis=1) < 0) & (side.max(axis=1) > 0)
    inside = (along.min(axis=1) < 1.0) & (along.max(axis=1) > 0.0)
    return np.asarray(near | (straddles & inside))


def _gnomonic(ra: np.ndarray, dec: np.ndarray, ra0: np.ndarray, dec0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, d, d0 = np.radians(ra - ra0), np.radians(dec), np.radians(dec0)
    cosine = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    cosine = np.where(cosine > 0.1, cosine, np.nan)   # beyond 84 deg no detector is near
    x = np.cos(d) * np.sin(a) / cosine
    y = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / cosine
    return np.degrees(x), np.degrees(y)
