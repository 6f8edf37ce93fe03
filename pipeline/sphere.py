"""Positions on the sky as unit vectors: no seam at RA 0, no trouble at the poles."""

import numpy as np

ARCSEC = np.pi / 180.0 / 3600.0   # [rad]


def unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """(n, 3) unit vectors of positions in degrees."""
    a, d = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return _stacked(np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d))


def positions(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RA in [0, 360) and Dec [deg] of (n, 3) vectors of any length."""
    vectors = np.asarray(vectors, float)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    ra = np.degrees(np.arctan2(y, x)) % 360.0
    return np.where(ra >= 360.0, 0.0, ra), np.degrees(np.arctan2(z, np.hypot(x, y)))


def east_north(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors towards East and North, (n, 3) each, at positions in degrees."""
    a, d = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return (_stacked(-np.sin(a), np.cos(a), np.zeros_like(a)),
            _stacked(-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)))


def _stacked(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(..., 3): `np.stack` costs more than the rest where there are few."""
    out = np.empty((*np.shape(x), 3))
    out[..., 0], out[..., 1], out[..., 2] = x, y, z
    return out


def offsets_arcsec(ra: np.ndarray, dec: np.ndarray, ra_to: np.ndarray,
                   dec_to: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets to the East (RA cos Dec) and North of nearby positions [arcsec], in the plane tangent at the first."""
    east, north = east_north(ra, dec)
    there = unit_vectors(ra_to, dec_to)
    return np.sum(east * there, axis=-1) / ARCSEC, np.sum(north * there, axis=-1) / ARCSEC


def chord(angle_arcsec: float) -> float:
    """Length of the chord of an angle on the unit sphere."""
    return float(2.0 * np.sin(angle_arcsec * ARCSEC / 2.0))


def angles_arcsec(chords: np.ndarray) -> np.ndarray:
    """Angles of chords of the unit sphere [arcsec]."""
    return np.asarray(2.0 * np.arcsin(np.minimum(np.asarray(chords) / 2.0, 1.0)) / ARCSEC)
