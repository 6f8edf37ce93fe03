"""FITS WCS arithmetic: TAN, TAN-SIP and TPV, from header to header.

A convention, so shared: both sides of the twin use it, and it is tested against astropy. Pixel coordinates are
0-based (the FITS keyword CRPIX is 1-based). References: Calabretta & Greisen 2002 (TAN); Shupe et al. 2005 (SIP);
the TPV convention of the FITS registry.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

ARCSEC = 1.0 / 3600.0

# Powers (x, y, r) of the TPV terms PV1_0 .. PV1_39; PV2_m swaps x and y.
_TPV = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0), (1, 1, 0), (0, 2, 0), (3, 0, 0), (2, 1, 0), (1, 2, 0),
        (0, 3, 0), (0, 0, 3), (4, 0, 0), (3, 1, 0), (2, 2, 0), (1, 3, 0), (0, 4, 0), (5, 0, 0), (4, 1, 0), (3, 2, 0),
        (2, 3, 0), (1, 4, 0), (0, 5, 0), (0, 0, 5), (6, 0, 0), (5, 1, 0), (4, 2, 0), (3, 3, 0), (2, 4, 0), (1, 5, 0),
        (0, 6, 0), (7, 0, 0), (6, 1, 0), (5, 2, 0), (4, 3, 0), (3, 4, 0), (2, 5, 0), (1, 6, 0), (0, 7, 0), (0, 0, 7)]


@dataclass(frozen=True, slots=True)
class Wcs:
    """A gnomonic projection with an optional polynomial distortion.

    `distortion` holds (power of x, power of y, power of r, coefficient) terms: for SIP they are added to the pixel
    offsets (u, v); for TPV they replace the intermediate world coordinates.
    """

    crpix: tuple[float, float]                    # 0-based pixel of the reference point
    crval: tuple[float, float]                    # its RA, Dec [deg]
    cd: tuple[float, float, float, float]         # CD1_1, CD1_2, CD2_1, CD2_2 [deg per pixel]
    kind: str = "TAN"                             # TAN | TAN-SIP | TPV
    distortion_x: tuple[tuple[int, int, int, float], ...] = ()
    distortion_y: tuple[tuple[int, int, int, float], ...] = ()

    @classmethod
    def tangent(cls, ra: float, dec: float, shape: tuple[int, int], *, scale_arcsec: float = 0.2,
                rotation: float = 0.0) -> Self:
        """A plain TAN WCS centred on an array; +y points `rotation` degrees East of North, +x to the West of that."""
        scale, angle = scale_arcsec * ARCSEC, np.radians(rotation)
        c, s = float(np.cos(angle)) * scale, float(np.sin(angle)) * scale
        return cls(((shape[1] - 1) / 2, (shape[0] - 1) / 2), (ra % 360.0, dec), (-c, s, s, c))

    @staticmethod
    def from_header(header: Mapping[str, Any]) -> "Wcs":
        """The WCS of a FITS header; ValueError names the keyword that is missing or not supported."""
        return _from_header(header)

    def rounded(self) -> "Wcs":
        """The nearest WCS whose numbers all fit a FITS card exactly, so that writing and reading gives it back."""
        def card(value: float) -> float:
            return float(f"{value:.12e}")

        def terms(of: tuple[tuple[int, int, int, float], ...]) -> tuple[tuple[int, int, int, float], ...]:
            return tuple((p, q, k, card(value)) for p, q, k, value in of)

        x, y = (card(v + 1.0) - 1.0 for v in self.crpix)
        ra, dec = (card(v) for v in self.crval)
        a, b, c, d = (card(v) for v in self.cd)
        return Wcs((x, y), (ra, dec), (a, b, c, d), self.kind, terms(self.distortion_x), terms(self.distortion_y))

    def header(self) -> dict[str, Any]:
        """FITS keywords of this WCS."""
        return _header(self)

    def sky(self, x: np.ndarray | float, y: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """RA, Dec [deg] of pixel positions."""
        xi, eta = self._plane(np.asarray(x, float), np.asarray(y, float))
        ra0, dec0 = np.radians(self.crval)
        xi, eta = np.radians(xi), np.radians(eta)
        denominator = np.cos(dec0) - eta * np.sin(dec0)
        ra = ra0 + np.arctan2(xi, denominator)
        dec = np.arctan2(np.sin(dec0) + eta * np.cos(dec0), np.hypot(xi, denominator))
        return np.degrees(ra) % 360.0, np.degrees(dec)

    def pixels(self, ra: np.ndarray | float, dec: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Pixel positions of RA, Dec [deg]; NaN for points behind the tangent plane."""
        ra0, dec0 = np.radians(self.crval)
        a, d = np.radians(np.asarray(ra, float)) - ra0, np.radians(np.asarray(dec, float))
        cosine = np.sin(dec0) * np.sin(d) + np.cos(dec0) * np.cos(d) * np.cos(a)
        front = cosine > 1e-6
        cosine = np.where(front, cosine, np.nan)
        xi = np.degrees(np.cos(d) * np.sin(a) / cosine)
        eta = np.degrees((np.cos(dec0) * np.sin(d) - np.sin(dec0) * np.cos(d) * np.cos(a)) / cosine)
        return self._unplane(xi, eta)

    def _plane(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u, v = x - self.crpix[0], y - self.crpix[1]
        if self.kind == "TAN-SIP":
            u, v = u + _polynomial(self.distortion_x, u, v), v + _polynomial(self.distortion_y, u, v)
        a, b, c, d = self.cd
        xi, eta = a * u + b * v, c * u + d * v
        if self.kind == "TPV":
            return _polynomial(self.distortion_x, xi, eta), _polynomial(self.distortion_y, xi, eta)
        return xi, eta

    def _unplane(self, xi: np.ndarray, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b, c, d = self.cd
        det = a * d - b * c
        u, v = (d * xi - b * eta) / det, (a * eta - c * xi) / det
        if self.kind == "TAN":
            return u + self.crpix[0], v + self.crpix[1]
        x, y = u + self.crpix[0], v + self.crpix[1]
        for _ in range(12):  # fixed point: distortions are a small fraction of the offsets
            got_xi, got_eta = self._plane(x, y)
            e, f = xi - got_xi, eta - got_eta
            x, y = x + (d * e - b * f) / det, y + (a * f - c * e) / det
        return x, y

    @property
    def scale_arcsec(self) -> float:
        """Pixel scale at the reference point, the root of the pixel's area [arcsec]."""
        a, b, c, d = self.cd
        return float(np.sqrt(abs(a * d - b * c))) * 3600.0

    def jacobian(self, x: float, y: float) -> np.ndarray:
        """(2, 2) derivative of (RA cos Dec, Dec) [deg] by (x, y) [pixel] at a point."""
        h = 0.5
        ra, dec = self.sky(np.array([x - h, x + h, x, x]), np.array([y, y, y - h, y + h]))
        east = ((ra - ra[0] + 180.0) % 360.0 - 180.0) * np.cos(np.radians(dec.mean()))
        return np.array([[east[1] - east[0], east[3] - east[2]], [dec[1] - dec[0], dec[3] - dec[2]]])

    def shifted(self, dx: float, dy: float) -> "Wcs":
        """The WCS of a cutout whose first pixel is (dx, dy) of this array."""
        return Wcs((self.crpix[0] - dx, self.crpix[1] - dy), self.crval, self.cd, self.kind,
                   self.distortion_x, self.distortion_y)


def _polynomial(terms: tuple[tuple[int, int, int, float], ...], u: np.ndarray, v: np.ndarray) -> np.ndarray:
    total = np.zeros(np.broadcast(u, v).shape)
    r = np.hypot(u, v) if any(t[2] for t in terms) else None
    for p, q, k, coefficient in terms:
        term = coefficient * u**p * v**q
        total = total + (term * r**k if r is not None and k else term)
    return total


def _from_header(header: Mapping[str, Any]) -> Wcs:
    missing = [k for k in ("CTYPE1", "CTYPE2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2") if k not in header]
    if missing:
        raise ValueError(f"no celestial WCS: header lacks {', '.join(missing)}")
    types = str(header["CTYPE1"]).strip(), str(header["CTYPE2"]).strip()
    if not (types[0].startswith("RA---") and types[1].startswith("DEC--")):
        raise ValueError(f"CTYPE1, CTYPE2 must be RA and DEC in that order, got {types[0]!r}, {types[1]!r}")
    projection = types[0][5:]
    has_pv = any(f"PV{i}_{m}" in header for i in (1, 2) for m in range(3, 40))
    if projection == "TAN" and has_pv:
        projection = "TPV"          # SCAMP's older spelling
    if projection not in ("TAN", "TAN-SIP", "TPV"):
        raise ValueError(f"CTYPE1 {types[0]!r}: the projection must be TAN, TAN-SIP or TPV")
    if "CD1_1" in header or "CD2_2" in header or "CD1_2" in header or "CD2_1" in header:
        cd = tuple(float(header.get(f"CD{i}_{j}", 0.0)) for i in (1, 2) for j in (1, 2))
    else:
        pc = [float(header.get(f"PC{i}_{j}", 1.0 if i == j else 0.0)) for i in (1, 2) for j in (1, 2)]
        step = float(header.get("CDELT1", 1.0)), float(header.get("CDELT2", 1.0))
        cd = (pc[0] * step[0], pc[1] * step[0], pc[2] * step[1], pc[3] * step[1])
    if abs(cd[0] * cd[3] - cd[1] * cd[2]) < 1e-30 or not np.all(np.isfinite(cd)):
        raise ValueError(f"the CD matrix {cd} is singular")
    crpix = float(header["CRPIX1"]) - 1.0, float(header["CRPIX2"]) - 1.0
    crval = float(header["CRVAL1"]), float(header["CRVAL2"])
    x_terms: tuple[tuple[int, int, int, float], ...] = ()
    y_terms: tuple[tuple[int, int, int, float], ...] = ()
    if projection == "TAN-SIP":
        x_terms, y_terms = _sip(header, "A"), _sip(header, "B")
    if projection == "TPV":
        x_terms, y_terms = _tpv(header, 1), _tpv(header, 2)
    return Wcs(crpix, crval, (cd[0], cd[1], cd[2], cd[3]), projection, x_terms, y_terms)


def _sip(header: Mapping[str, Any], letter: str) -> tuple[tuple[int, int, int, float], ...]:
    order = int(header.get(f"{letter}_ORDER", 0))
    return tuple((p, q, 0, float(header[f"{letter}_{p}_{q}"])) for p in range(order + 1) for q in range(order + 1 - p)
                 if f"{letter}_{p}_{q}" in header)


def _tpv(header: Mapping[str, Any], axis: int) -> tuple[tuple[int, int, int, float], ...]:
    terms = []
    for m, (p, q, k) in enumerate(_TPV):
        default = 1.0 if m == 1 else 0.0
        value = float(header.get(f"PV{axis}_{m}", default))
        if value:
            terms.append((p, q, k, value) if axis == 1 else (q, p, k, value))
    return tuple(terms)


def _header(wcs: Wcs) -> dict[str, Any]:
    projection = {"TAN": "TAN", "TAN-SIP": "TAN-SIP", "TPV": "TPV"}[wcs.kind]
    out: dict[str, Any] = {"CTYPE1": f"RA---{projection}", "CTYPE2": f"DEC--{projection}", "CUNIT1": "deg",
                           "CUNIT2": "deg", "CRPIX1": wcs.crpix[0] + 1.0, "CRPIX2": wcs.crpix[1] + 1.0,
                           "CRVAL1": wcs.crval[0], "CRVAL2": wcs.crval[1], "CD1_1": wcs.cd[0], "CD1_2": wcs.cd[1],
                           "CD2_1": wcs.cd[2], "CD2_2": wcs.cd[3], "RADESYS": "ICRS"}
    if wcs.kind == "TAN-SIP":
        for letter, terms in (("A", wcs.distortion_x), ("B", wcs.distortion_y)):
            out[f"{letter}_ORDER"] = max((p + q for p, q, _, _ in terms), default=2)
            out.update({f"{letter}_{p}_{q}": value for p, q, _, value in terms})
    if wcs.kind == "TPV":
        for axis, terms in ((1, wcs.distortion_x), (2, wcs.distortion_y)):
            swap = axis == 2
            for p, q, k, value in terms:
                m = _TPV.index((q, p, k) if swap else (p, q, k))
                out[f"PV{axis}_{m}"] = value
            if not any((q, p, k) == (1, 0, 0) if swap else (p, q, k) == (1, 0, 0) for p, q, k, _ in terms):
                out[f"PV{axis}_1"] = 0.0
    return out
