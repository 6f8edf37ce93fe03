"""Known Solar System objects: where they were at mid-exposure, which DIASources they are, what an alert says of them.

Ephemerides arrive as polynomials of time, made before the exposure; they are evaluated at the true midpoint. Positions
are of the object when the light left it, seen from the observer, on ICRF axes.
"""

import json
import re
import string
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.spatial import cKDTree

from pipeline.sphere import angles_arcsec, chord, east_north, offsets_arcsec, positions, unit_vectors
from schemas.table import MPC_ORBITS, SS_SOURCE

AU_KM: Final = 149597870.7                        # IAU 2012 B2
TT_MINUS_TAI_D: Final = 32.184 / 86400.0          # [d]
GAUSS_K: Final = 0.01720209895                    # [au^1.5 / d]; the mean motion of an orbit is k / a^1.5
OBLIQUITY: Final = 84381.406 / 3600.0             # J2000.0 [deg], IAU 2006
GALACTIC: Final = np.array([                      # ICRS to Galactic (IAU 1958) by way of FK5, as real alerts have it
    [-0.05487565771259, -0.87343705195562, -0.48383507361672],
    [+0.49410943719273, -0.44482972122330, +0.74698218398667],
    [-0.86766613755966, -0.19807633727300, +0.45598381368730]])
PLACEHOLDERS: Final = (                           # 0 in public alerts: models that hardly an orbit has, and the unknown
    "yarkovsky", "srp", "a1", "a2", "a3", "dt", "yarkovsky_unc", "srp_unc", "a1_unc", "a2_unc", "a3_unc", "dt_unc",
    "not_normalized_rms", "earth_moid")
_PROVISIONAL: Final = re.compile(rb"(18|19|20)(\d\d) ([A-Z])([A-Z])([1-9]\d*)?")
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase      # tens of the cycle, to 61


@dataclass(frozen=True, slots=True)
class Predicted:
    """Known objects at one time; all arrays have one row per EPHEMERIS row that covers it."""

    row: np.ndarray            # (m,) index of the EPHEMERIS row
    topo: np.ndarray           # (m, 3) object from the observer [au]
    topo_velocity: np.ndarray  # (m, 3) [au/d]
    helio: np.ndarray          # (m, 3) object from the Sun [au]
    helio_velocity: np.ndarray
    ra: np.ndarray             # (m,) [deg]
    dec: np.ndarray

    def __len__(self) -> int:
        return len(self.row)


def predict(ephemerides: np.ndarray, mjd_tai: float) -> Predicted:
    """Known objects at a time; an ephemeris that does not reach it is left out."""
    if not len(ephemerides):
        none = np.empty((0, 3))
        return Predicted(np.empty(0, np.intp), none, none, none, none, np.empty(0), np.empty(0))
    phase = (mjd_tai - ephemerides["epoch_mjd_tai"]) / ephemerides["half_span_d"]
    row = np.flatnonzero(np.abs(phase) <= 1.0)
    t, span = phase[row], ephemerides["half_span_d"][row]
    topo, topo_velocity = _polynomial(ephemerides["object_xyz"][row], t, span)
    observer, observer_velocity = _polynomial(ephemerides["observer_xyz"][row], t, span)
    return Predicted(row, topo, topo_velocity, topo + observer, topo_velocity + observer_velocity, *positions(topo))


def _polynomial(coefficients: np.ndarray, t: np.ndarray, span_d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value (m, 3) and derivative per day of polynomials (m, 3, order + 1) in t = (time - epoch) / span."""
    k = np.arange(coefficients.shape[-1])
    powers = t[:, None] ** k
    slopes = k * t[:, None] ** np.maximum(k - 1, 0)
    return (np.einsum("mck,mk->mc", coefficients, powers),
            np.einsum("mck,mk->mc", coefficients, slopes) / span_d[:, None])


def match(ra: np.ndarray, dec: np.ndarray, predicted: Predicted, radius_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """(source, prediction) pairs: each object's nearest source within the radius, nearest pairs first, one to one."""
    if not len(ra) or not len(predicted):
        return np.empty(0, int), np.empty(0, int)
    chords, nearest = cKDTree(unit_vectors(ra, dec)).query(unit_vectors(predicted.ra, predicted.dec))
    order = np.argsort(chords, kind="stable")
    order = order[chords[order] <= chord(radius_arcsec)]
    _, first = np.unique(nearest[order], return_index=True)
    chosen = order[np.sort(first)]
    return nearest[chosen], chosen


def ss_sources(sources: np.ndarray, ephemerides: np.ndarray, predicted: Predicted, chosen: np.ndarray) -> np.ndarray:
    """SS_SOURCE rows of DIASources and the predictions (rows of `predicted`) that they were matched with."""
    if not len(sources):
        return SS_SOURCE.empty()
    rows, known = SS_SOURCE.empty(len(sources)), ephemerides[predicted.row[chosen]]
    rows["diaSourceId"], rows["ssObjectId"] = sources["diaSourceId"], known["ssObjectId"]
    rows["designation"] = known["designation"]
    rows["ephVmag"], rows["diaDistanceRank"] = known["vmag"], 1
    _observed(rows, unit_vectors(sources["ra"], sources["dec"]))
    topo, helio = predicted.topo[chosen], predicted.helio[chosen]
    topo_v, helio_v = predicted.topo_velocity[chosen], predicted.helio_velocity[chosen]
    _vectors(rows, topo, helio, topo_v, helio_v)
    rows["elongation"] = _angle(topo, topo - helio)        # the Sun from the observer is topo - helio
    rows["phaseAngle"] = _angle(helio, topo)               # at the object, the Sun is -helio and the observer -topo
    _offsets(rows, sources, topo, topo_v, predicted.ra[chosen], predicted.dec[chosen])
    return rows


def _observed(rows: np.ndarray, vectors: np.ndarray) -> None:
    """Coordinates of the observed positions in the mean ecliptic of J2000.0 and in the Galactic system."""
    c, s = np.cos(np.radians(OBLIQUITY)), np.sin(np.radians(OBLIQUITY))
    ecliptic = np.array([[1.0, 0.0, 0.0], [0.0, c, s], [0.0, -s, c]])
    rows["eclLambda"], rows["eclBeta"] = positions(vectors @ ecliptic.T)
    rows["galLon"], rows["galLat"] = positions(vectors @ GALACTIC.T)


def _vectors(rows: np.ndarray, topo: np.ndarray, helio: np.ndarray, topo_v: np.ndarray, helio_v: np.ndarray) -> None:
    """Ranges, their rates, and the vectors themselves: au and km/s."""
    speed = AU_KM / 86400.0
    for name, place, velocity in (("topo", topo, topo_v), ("helio", helio, helio_v)):
        distance = np.linalg.norm(place, axis=1)
        rows[f"{name}Range"] = distance
        rows[f"{name}RangeRate"] = np.sum(place * velocity, axis=1) / distance * speed
        for axis, letter in enumerate("xyz"):
            rows[f"{name}_{letter}"] = place[:, axis]
            rows[f"{name}_v{letter}"] = velocity[:, axis] * speed
        rows[f"{name}_vtot"] = np.linalg.norm(velocity, axis=1) * speed


def _offsets(rows: np.ndarray, sources: np.ndarray, topo: np.ndarray, topo_v: np.ndarray, ra: np.ndarray,
             dec: np.ndarray) -> None:
    """Predicted place and rate, and where the source lies from it: along the motion, and to the left of it."""
    east, north = east_north(ra, dec)
    distance = np.linalg.norm(topo, axis=1)
    rate_ra = np.degrees(np.sum(east * topo_v, axis=1) / distance)
    rate_dec = np.degrees(np.sum(north * topo_v, axis=1) / distance)
    rate = np.hypot(rate_ra, rate_dec)
    off_ra, off_dec = offsets_arcsec(ra, dec, sources["ra"], sources["dec"])
    rows["ephRa"], rows["ephDec"] = ra, dec
    rows["ephRate"], rows["ephRateRa"], rows["ephRateDec"] = rate, rate_ra, rate_dec
    rows["ephOffsetRa"], rows["ephOffsetDec"] = off_ra, off_dec
    chords = np.linalg.norm(unit_vectors(ra, dec) - unit_vectors(sources["ra"], sources["dec"]), axis=1)
    rows["ephOffset"] = angles_arcsec(chords)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows["ephOffsetAlongTrack"] = (off_ra * rate_ra + off_dec * rate_dec) / rate
        rows["ephOffsetCrossTrack"] = (off_ra * rate_dec - off_dec * rate_ra) / rate


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles between vectors (n, 3) [deg], exact for small and for large ones."""
    cross = np.linalg.norm(np.cross(a, b), axis=1)
    return np.asarray(np.degrees(np.arctan2(cross, np.sum(a * b, axis=1))))


def packed(designation: bytes) -> bytes:
    """A provisional designation in the Minor Planet Center's packed form; others, and those past cycle 619, unchanged.

    Examples
    --------
    >>> packed(b"1995 XL1"), packed(b"2007 TA418"), packed(b"SIM000042")
    (b'J95X01L', b'K07Tf8A', b'SIM000042')
    """
    found = _PROVISIONAL.fullmatch(designation)
    cycle = int(found[5] or 0) if found else len(_DIGITS) * 10
    if found is None or cycle >= len(_DIGITS) * 10:
        return designation
    count = _DIGITS[cycle // 10] + str(cycle % 10)
    return {b"18": b"I", b"19": b"J", b"20": b"K"}[found[1]] + found[2] + found[3] + count.encode() + found[4]


def mpc_orbits(ephemerides: np.ndarray) -> np.ndarray:
    """MPC_ORBITS rows of EPHEMERIS rows; what the ephemeris service does not give is null, or the real placeholder."""
    rows = MPC_ORBITS.empty(len(ephemerides))
    rows["designation"] = rows["unpacked_primary_provisional_designation"] = ephemerides["designation"]
    rows["packed_primary_provisional_designation"] = [packed(name) for name in ephemerides["designation"].tolist()]
    rows["id"], rows["orbit_type_int"] = 0, -1
    for name in PLACEHOLDERS:
        rows[name] = 0.0
    for name in ("created_at", "updated_at", "fitting_datetime"):
        rows[name] = np.datetime64("1970-01-01", "us")
    for name, given in (("a", "a"), ("e", "e"), ("i", "inc"), ("node", "node"), ("argperi", "argperi"),
                        ("mean_anomaly", "mean_anomaly"), ("h", "h"), ("g", "g")):
        rows[name] = ephemerides[given]
    rows["epoch_mjd"] = ephemerides["epoch_orbit_mjd_tai"] + TT_MINUS_TAI_D
    rows["q"] = ephemerides["a"] * (1.0 - ephemerides["e"])
    motion = np.degrees(GAUSS_K) / np.abs(ephemerides["a"]) ** 1.5      # [deg/d]
    rows["mean_motion"], rows["period"] = motion, np.where(ephemerides["e"] < 1.0, 360.0 / motion, np.nan)
    rows["peri_time"] = rows["epoch_mjd"] + (-ephemerides["mean_anomaly"] % 360.0) / motion   # the next passage
    _uncertainties(rows, ephemerides["element_errors"])
    _fit(rows, ephemerides)
    return rows


def _uncertainties(rows: np.ndarray, errors: np.ndarray) -> None:
    """Fill one sigma of the elements, and of what follows from them; correlations are not known here."""
    for k, name in enumerate(("a", "e", "i", "node", "argperi", "mean_anomaly")):
        rows[f"{name}_unc"] = errors[:, k]
    a, e, motion = rows["a"], rows["e"], rows["mean_motion"]
    rows["q_unc"] = np.hypot((1.0 - e) * rows["a_unc"], a * rows["e_unc"])
    rows["mean_motion_unc"] = 1.5 * motion * rows["a_unc"] / np.abs(a)
    rows["period_unc"] = 1.5 * rows["period"] * rows["a_unc"] / np.abs(a)
    ahead = rows["peri_time"] - rows["epoch_mjd"]
    rows["peri_time_unc"] = np.hypot(rows["mean_anomaly_unc"], ahead * rows["mean_motion_unc"]) / motion


def _fit(rows: np.ndarray, ephemerides: np.ndarray) -> None:
    """Fill what is said of the fit to the observations, and its JSON form.

    `normalized_rms` is the one expected of six elements fitted to two coordinates per observation; `u_param` is the
    Minor Planet Center's uncertainty parameter.
    """
    n = ephemerides["n_observations"]
    seen = n > 0
    rows["nopp"] = np.where(seen, ephemerides["n_oppositions"], -1)
    for name in ("arc_length_total", "arc_length_sel"):
        rows[name] = np.where(seen, ephemerides["arc_d"], np.nan)
    for name in ("nobs_total", "nobs_total_sel"):
        rows[name] = np.where(seen, n, -1)
    rows["normalized_rms"] = np.where(seen, np.sqrt(np.maximum(1.0 - 3.0 / np.maximum(n, 1), 0.0)), np.nan)
    rows["u_param"] = uncertainty_parameter(rows)
    rows["mpc_orb_jsonb"] = [_json(row) if known else b"" for row, known in zip(rows, seen, strict=True)]


def uncertainty_parameter(rows: np.ndarray) -> np.ndarray:
    """The Minor Planet Center's U of MPC_ORBITS rows, 0 (best) to 9: the runoff along the orbit in ten years; -1
    without errors.

    References
    ----------
    https://www.minorplanetcenter.net/iau/info/UValue.html
    """
    years = rows["period"] / 365.25
    with np.errstate(divide="ignore", invalid="ignore"):
        runoff = (rows["peri_time_unc"] * rows["e"] + 10.0 * rows["period_unc"] / years) * (
            np.degrees(GAUSS_K) / years) * 3600.0 * 3.0                 # [arcsec per decade]
        grade = np.floor(np.log(np.maximum(runoff, 1e-30)) / (np.log(648000.0) / 9.0)) + 1.0
    return np.where(np.isfinite(runoff), np.clip(np.nan_to_num(grade), 0, 9), -1).astype(int)


def _json(row: np.ndarray) -> bytes:
    """An orbit in the Minor Planet Center's JSON form, as far as it is known."""
    names = ("q", "e", "i", "node", "argperi", "peri_time")
    names_of = [f"{form}_primary_provisional_designation" for form in ("packed", "unpacked")]
    return json.dumps({
        "COM": {"coefficient_names": names, "coefficient_values": [float(row[name]) for name in names],
                "coefficient_uncertainties": [float(row[f"{name}_unc"]) for name in names]},
        "epoch_data": {"epoch": float(row["epoch_mjd"]), "timeform": "MJD", "timesystem": "TDT"},
        "magnitude_data": {"G": float(row["g"]), "H": float(row["h"])},
        "designation_data": {name: bytes(row[name]).decode() for name in names_of},
        "orbit_fit_statistics": {"nopp": int(row["nopp"]), "U_param": int(row["u_param"]),
                                 "nobs_total": int(row["nobs_total"]), "nobs_total_sel": int(row["nobs_total_sel"]),
                                 "normalized_RMS": float(row["normalized_rms"])}}).encode()
