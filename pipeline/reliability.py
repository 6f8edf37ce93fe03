"""How likely a detection is real: a small trained model on what was measured of it and on its three stamps.

Rubin scores 51x51 px triplets with a convolutional network (meas_transiNet, DMTN-337). This one is a boosted forest of
shallow trees on features that say how the residual differs from a point source, a trail or a dipole, and how bright
and how noisy its surroundings are; it is shipped as ONNX and trained by `alert-twin train`, on other seeds and
another scenario than any it is judged on.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.errors import InputError
from pipeline.images import Cutouts
from pipeline.pixel_config import ReliabilityConfig

RADIUS: Final = 10          # [pixel] of the square of every stamp that features see
SHIPPED: Final = "reliability.onnx"
VERSION: Final = "twin1"    # reliabilityVersion of the prompt tables, at most 7 characters

FLAGS: Final = ("pixelFlags_cr", "pixelFlags_crCenter", "pixelFlags_edge", "pixelFlags_nodata",
                "pixelFlags_interpolated", "pixelFlags_saturated", "pixelFlags_suspect", "pixelFlags_streak",
                "pixelFlags_bad", "high_varianceCenterAll", "shape_flag", "isDipole", "trail_flag", "centroid_flag")

NAMES: Final = (
    "snr", "negative", "chi2", "size_ratio", "elongation", "aperture_ratio", "extendedness", "dipole_ratio",
    "science_snr", "template_snr", "template_contrast", "centroid_offset", "centroid_error", "trail_length",
    "trail_gain", "area", "own_sign", "sharpness", "psf_correlation", "residual_core", "residual_ring",
    "opposite_pixels", "opposite_peak", "template_peak", "template_ring", "science_peak", "variance_ratio",
    "template_variance_ratio", "missing", *FLAGS)


def score(sources: np.ndarray, science: Cutouts, template: Cutouts, difference: Cutouts,
          config: ReliabilityConfig) -> np.ndarray:
    """(n,) float32 probabilities that MEASUREMENT rows are real sources, in their order.

    Raises
    ------
    InputError
        Where the configured model cannot be read or wants another number of features.
    """
    if not len(sources):
        return np.zeros(0, np.float32)
    session = _session(config.model)
    wanted = session.get_inputs()[0].shape[1]
    if wanted != len(NAMES):
        raise InputError(f"reliability model {config.model or SHIPPED}: takes {wanted} features, "
                         f"the pipeline makes {len(NAMES)}")
    outputs = session.run(None, {session.get_inputs()[0].name: features(sources, science, template, difference)})
    return np.asarray(outputs[-1][:, 1], np.float32)


def features(sources: np.ndarray, science: Cutouts, template: Cutouts, difference: Cutouts) -> np.ndarray:
    """(n, len(NAMES)) float32 features; what is missing is 0, and bounded so that no model sees an infinity."""
    columns = _measured(sources) | _imaged(sources, science, template, difference)
    columns |= {name: sources[name].astype(float) for name in FLAGS}
    table = np.stack([columns[name] for name in NAMES], axis=1)
    return np.asarray(np.clip(np.nan_to_num(table, nan=0.0, posinf=1e4, neginf=-1e4), -1e4, 1e4), np.float32)


def _measured(s: np.ndarray) -> dict[str, np.ndarray]:
    """Features from the measurements alone."""
    snr = np.abs(s["psfFlux"]) / s["psfFluxErr"]
    trace, trace_psf = s["ixx"] + s["iyy"], s["ixxPSF"] + s["iyyPSF"]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "snr": np.log10(np.maximum(np.nan_to_num(snr, nan=0.1), 0.1)),
            "negative": s["isNegative"].astype(float),
            "chi2": s["psfChi2"] / np.maximum(s["psfNdata"], 1),
            "size_ratio": trace / trace_psf,
            "elongation": np.hypot(s["ixx"] - s["iyy"], 2 * s["ixy"]) / trace,
            "aperture_ratio": np.clip(s["apFlux"] / s["psfFlux"], -10, 10),
            "extendedness": s["extendedness"].astype(float),
            "dipole_ratio": np.abs(s["dipoleFluxDiff"]) / np.abs(s["dipoleMeanFlux"]),
            "science_snr": np.arcsinh(s["scienceFlux"] / s["scienceFluxErr"]),
            "template_snr": np.arcsinh(s["templateFlux"] / s["templateFluxErr"]),
            "template_contrast": np.clip(s["templateFlux"] / np.abs(s["psfFlux"]), -100, 1000),
            "centroid_offset": np.hypot(s["x"] - s["peak_x"], s["y"] - s["peak_y"]),
            "centroid_error": np.hypot(s["xErr"], s["yErr"]) * snr,
            "trail_length": s["trailLength"] / np.sqrt(trace_psf / 2),
            "trail_gain": (s["psfChi2"] - s["trailChi2"]) / np.maximum(s["trailNdata"], 1),
            "area": np.log10(np.maximum(s["footprint_area"], 1)),
        }


def _imaged(s: np.ndarray, science: Cutouts, template: Cutouts, difference: Cutouts) -> dict[str, np.ndarray]:
    """Features from the middle (21, 21) px of the stamps, in units of the local noise and of the source's sign."""
    side = 2 * RADIUS + 1
    d, dv = _middle(difference.image), _middle(difference.variance)
    t, tv, c = _middle(template.image), _middle(template.variance), _middle(science.image)
    missing = ~np.isfinite(d) | ~(dv > 0)
    sigma = np.sqrt(np.where(missing, np.inf, dv))
    sign = np.where(s["psfFlux"] < 0, -1.0, 1.0)[:, None, None]
    z = np.where(missing, 0.0, np.nan_to_num(d) / sigma) * sign
    y, x = np.mgrid[:side, :side] - RADIUS
    r = np.hypot(x, y)
    core, ring, outer = r <= 3.5, (r > 3.5) & (r <= 8.0), r > 8.0
    psf = _centred(difference.psf, side)
    model = psf / np.sqrt(np.sum(psf**2))
    with np.errstate(divide="ignore", invalid="ignore"):
        flux = np.einsum("nij,ij->n", z, model)
        norm = np.sqrt(np.sum(z[:, r <= 8] ** 2, axis=1))
        residual = z - flux[:, None, None] * model
        median_variance = _median(np.where(missing, np.nan, dv)[:, outer])
        template_noise = np.sqrt(np.where(tv > 0, tv, np.inf))
        template_z = np.nan_to_num(t) / template_noise
        template_outer = _median(np.where(tv > 0, tv, np.nan)[:, outer])
        peak = np.max(np.abs(z[:, core]), axis=1)
        return {
            "own_sign": np.mean(z[:, core] > 0, axis=1),
            "sharpness": peak / np.maximum(flux * model.max(), 0.1),
            "psf_correlation": flux / norm,
            "residual_core": np.sqrt(np.mean(residual[:, core] ** 2, axis=1)),
            "residual_ring": np.sqrt(np.mean(residual[:, ring] ** 2, axis=1)),
            "opposite_pixels": np.sum(z[:, r <= 8] < -3.0, axis=1).astype(float),
            "opposite_peak": -np.min(z[:, r <= 8], axis=1) / np.maximum(peak, 0.1),
            "template_peak": np.arcsinh(np.max(template_z[:, core], axis=1)),
            "template_ring": np.arcsinh(np.max(template_z[:, ring], axis=1)),
            "science_peak": np.arcsinh(np.max(np.nan_to_num(c)[:, core] / np.minimum(sigma, 1e30)[:, core], axis=1)),
            "variance_ratio": np.nan_to_num(dv[:, RADIUS, RADIUS]) / median_variance,
            "template_variance_ratio": np.nan_to_num(tv[:, RADIUS, RADIUS]) / template_outer,
            "missing": np.mean(missing[:, r <= 8], axis=1),
        }


def _median(values: np.ndarray) -> np.ndarray:
    """(n,) lower median of the finite values of each row; NaN for a row without any."""
    count = np.isfinite(values).sum(axis=1)
    ordered = np.sort(np.where(np.isfinite(values), values, np.inf), axis=1)
    middle = np.take_along_axis(ordered, np.maximum(count - 1, 0)[:, None] // 2, axis=1)[:, 0]
    return np.asarray(np.where(count > 0, middle, np.nan))


def _middle(stamps: tuple[np.ndarray, ...]) -> np.ndarray:
    """(n, 21, 21) about the middle pixel, side // 2; NaN where a stamp is null."""
    out = np.full((len(stamps), 2 * RADIUS + 1, 2 * RADIUS + 1), np.nan)
    for i, stamp in enumerate(stamps):
        if stamp.size:
            m = stamp.shape[0] // 2
            out[i] = stamp[m - RADIUS:m + RADIUS + 1, m - RADIUS:m + RADIUS + 1]
    return out


def _centred(psf: np.ndarray, side: int) -> np.ndarray:
    """A PSF stamp cut or padded to a side."""
    out = np.zeros((side, side))
    half = min(psf.shape[0], side) // 2
    m, c = psf.shape[0] // 2, side // 2
    out[c - half:c + half + 1, c - half:c + half + 1] = psf[m - half:m + half + 1, m - half:m + half + 1]
    return out


@cache
def _session(model: str):  # type: ignore[no-untyped-def]  # onnxruntime ships no types
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    path = Path(model) if model else Path(str(files("pipeline") / "data" / SHIPPED))
    if not path.is_file():
        raise InputError(f"reliability model {path}: no such file")
    try:
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"reliability model {path}: not an ONNX model ({str(error).splitlines()[0]})") from None
