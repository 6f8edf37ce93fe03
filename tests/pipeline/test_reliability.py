"""The shipped model keeps real sources and refuses artifacts; its features are bounded whatever a stamp holds."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import reliability
from pipeline.config import ReliabilityConfig
from pipeline.errors import InputError
from pipeline.images import Cutouts
from schemas.measures import MEASUREMENT, empty

SIGMA, SIDE, NOISE = 1.8, 30, 10.0


def point(fx: float = 0.0, fy: float = 0.0, sigma: float = SIGMA, side: int = SIDE) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side // 2
    stamp = np.exp(-((x - fx) ** 2 + (y - fy) ** 2) / (2 * sigma**2))
    return stamp / (2 * np.pi * sigma**2)


def stamps(images: list[np.ndarray]) -> Cutouts:
    psf = point(side=41)
    return Cutouts(tuple(i.astype(np.float32) for i in images),
                   tuple(np.full(i.shape, NOISE**2, np.float32) for i in images), psf / psf.sum())


def rows(flux: np.ndarray) -> np.ndarray:
    """MEASUREMENT rows of point sources."""
    out = empty(MEASUREMENT, len(flux))
    err = NOISE * np.sqrt(4 * np.pi) * SIGMA
    out["psfFlux"], out["psfFluxErr"], out["isNegative"] = flux, err, flux < 0
    out["snr"], out["apFlux"], out["psfChi2"], out["psfNdata"] = flux / err, flux, 900.0, 900
    for name in ("ixx", "iyy", "ixxPSF", "iyyPSF"):
        out[name] = SIGMA**2
    out["ixy"] = out["ixyPSF"] = 0.0
    out["x"], out["y"], out["peak_x"], out["peak_y"], out["xErr"], out["yErr"] = 100.2, 99.9, 100, 100, 0.1, 0.1
    out["scienceFlux"], out["scienceFluxErr"], out["templateFlux"], out["templateFluxErr"] = flux, err, 0.0, err / 3
    out["extendedness"], out["trailLength"], out["footprint_area"] = 0.0, 0.0, 80
    return out


def made(n: int, draw: object, flux: float, seed: int = 0) -> tuple[np.ndarray, Cutouts, Cutouts, Cutouts]:
    rng = np.random.default_rng(seed)
    images = [draw() * flux + rng.normal(0, NOISE, (SIDE, SIDE)) for _ in range(n)]  # type: ignore[operator]  # a maker
    blank = [rng.normal(0, NOISE, (SIDE, SIDE)) for _ in range(n)]
    return rows(np.full(n, flux)), stamps(images), stamps(blank), stamps(images)


def test_clear_point_sources_are_kept_and_hot_pixels_refused() -> None:
    real = made(40, point, 12 * NOISE * np.sqrt(4 * np.pi) * SIGMA)
    kept = reliability.score(*real, ReliabilityConfig())
    assert np.mean(kept > 0.5) > 0.9
    def hot() -> np.ndarray:
        out = np.zeros((SIDE, SIDE))
        out[SIDE // 2, SIDE // 2] = 1.0
        return out
    sources, *images = made(40, hot, 12 * NOISE * np.sqrt(4 * np.pi) * SIGMA)
    sources["ixx"] = sources["iyy"] = 0.3
    sources["psfChi2"], sources["apFlux"] = 9000.0, sources["psfFlux"] * 0.7
    assert np.mean(reliability.score(sources, *images, ReliabilityConfig()) > 0.5) < 0.5 * np.mean(kept > 0.5)


def test_scores_are_probabilities_in_the_order_of_the_sources() -> None:
    sources, *images = made(12, point, 2000.0)
    together = reliability.score(sources, *images, ReliabilityConfig())
    assert together.dtype == np.float32
    assert ((together >= 0) & (together <= 1)).all()
    cutouts = [Cutouts(i.image[5:6], i.variance[5:6], i.psf) for i in images]
    assert reliability.score(sources[5:6], *cutouts, ReliabilityConfig())[0] == together[5]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1e30])
def test_features_are_finite_whatever_a_stamp_holds(value: float) -> None:
    sources, *images = made(3, point, 2000.0)
    bad = Cutouts(tuple(np.full_like(i, value) for i in images[0].image), images[0].variance, images[0].psf)
    null = Cutouts((np.zeros((0, 0), np.float32),) * 3, (np.zeros((0, 0), np.float32),) * 3, images[0].psf)
    for triplet in ((bad, bad, bad), (null, null, null)):
        table = reliability.features(sources, *triplet)
        assert table.shape == (3, len(reliability.NAMES))
        assert np.isfinite(table).all()
    assert np.isfinite(reliability.features(empty(MEASUREMENT, 3), *images)).all()


def test_no_sources_have_no_scores() -> None:
    none = stamps([])
    assert reliability.score(rows(np.zeros(0)), none, none, none, ReliabilityConfig()).shape == (0,)


def test_a_missing_or_broken_model_is_named(tmp_path: Path) -> None:
    sources, *images = made(1, point, 2000.0)
    with pytest.raises(InputError, match="no such file"):
        reliability.score(sources, *images, ReliabilityConfig(model=str(tmp_path / "none.onnx")))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(InputError, match="not an ONNX model"):
        reliability.score(sources, *images, ReliabilityConfig(model=str(broken)))
