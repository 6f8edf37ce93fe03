"""The allow-list refuses exactly the footprints that a predicted track meets."""

import numpy as np

from pipeline.satellites import TRACK_WIDTH_DEG, TrackSatellites
from schemas.exposure import Visit
from schemas.measures import TRACK
from schemas.wcs import Wcs

VISIT = Visit(2026010100001, "r", 0.0, -30.0, 0.0, 61000.0, 30.0)
WCS = Wcs.tangent(0.0, -30.0, (1000, 1000))


def corners(x: np.ndarray, y: np.ndarray, half: float = 5.0) -> np.ndarray:
    """Sky corners of boxes about pixel positions."""
    dx, dy = np.array([-half, half, half, -half]), np.array([-half, -half, half, half])
    return np.stack(WCS.sky(x[:, None] + dx, y[:, None] + dy), axis=-1)


def track(x0: float, y0: float, x1: float, y1: float, visit: int = VISIT.visit) -> np.ndarray:
    (ra0, ra1), (dec0, dec1) = WCS.sky(np.array([x0, x1]), np.array([y0, y1]))
    return np.array([(visit, ra0, dec0, ra1, dec1)], TRACK)


def test_sources_on_the_track_are_refused_and_the_others_allowed() -> None:
    half_px = TRACK_WIDTH_DEG / 2 * 3600 / 0.2
    x = np.full(4, 500.0)
    y = 500.0 + np.array([0.0, half_px, half_px + 20.0, -half_px - 20.0])
    allowed = TrackSatellites(track(-4000, 500, 6000, 500)).allowed(VISIT, 1, np.arange(4), corners(x, y))
    assert allowed.tolist() == [2, 3]


def test_a_track_of_another_visit_refuses_nothing() -> None:
    port = TrackSatellites(track(-4000, 500, 6000, 500, visit=7))
    assert port.allowed(VISIT, 1, np.arange(1), corners(np.array([500.0]), np.array([500.0]))).tolist() == [0]


def test_a_track_that_ends_before_the_source_does_not_meet_it() -> None:
    port = TrackSatellites(track(-4000, 500, 200, 500))
    x = np.array([150.0, 700.0])
    assert port.allowed(VISIT, 1, np.arange(2), corners(x, np.full(2, 500.0))).tolist() == [1]


def test_a_thin_track_through_the_middle_of_a_box_meets_it() -> None:
    port = TrackSatellites(track(-4000, 500, 6000, 500), width_deg=1e-6)
    assert len(port.allowed(VISIT, 1, np.arange(1), corners(np.array([500.0]), np.array([500.0]), 30.0))) == 0


def test_no_sources_and_no_tracks_are_fine() -> None:
    assert len(TrackSatellites(np.empty(0, TRACK)).allowed(VISIT, 1, np.arange(0), np.empty((0, 4, 2)))) == 0
