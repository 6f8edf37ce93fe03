"""Ephemerides are found where and when their polynomials hold."""

import numpy as np

from pipeline.ephemerides import TableEphemerides
from schemas.exposure import Box
from schemas.measures import EPHEMERIS, empty


def moving(ra: float, dec: float, rate_deg_per_day: float) -> np.ndarray:
    """An object at 2 au whose RA grows evenly, as cubic polynomials over half a day about MJD 61000."""
    s = np.linspace(-1, 1, 9)
    a, d = np.radians(ra + rate_deg_per_day * 0.5 * s), np.radians(dec)
    xyz = 2.0 * np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.full_like(a, np.sin(d))])
    row = empty(EPHEMERIS, 1)
    row["ssObjectId"], row["epoch_mjd_tai"], row["half_span_d"] = 5, 61000.0, 0.5
    row["object_xyz"] = np.stack([np.polynomial.polynomial.polyfit(s, v, 3) for v in xyz])
    return row


def test_an_object_is_found_near_its_place_and_not_far_from_it() -> None:
    port = TableEphemerides(moving(10.0, -5.0, 1.0))
    here = Box.around(np.array([10.0, 10.1]), np.array([-5.05, -4.95]))
    assert len(port.near(here, 61000.0)) == 1
    assert len(port.near(Box.around(np.array([12.0, 12.1]), np.array([-5.05, -4.95])), 61000.0)) == 0


def test_an_object_across_the_meridian_is_found() -> None:
    port = TableEphemerides(moving(359.99, 2.0, 1.0))
    assert len(port.near(Box.around(np.array([359.95, 0.05]), np.array([1.95, 2.05])), 61000.1)) == 1


def test_polynomials_are_not_used_beyond_their_span() -> None:
    port = TableEphemerides(moving(10.0, -5.0, 0.0))
    box = Box.around(np.array([10.0, 10.1]), np.array([-5.05, -4.95]))
    assert len(port.near(box, 61000.6)) == 0


def test_an_empty_table_finds_nothing() -> None:
    assert len(TableEphemerides(empty(EPHEMERIS, 0)).near(Box(0, 1, 0, 1), 61000.0)) == 0
