"""A whole visit drawn at once is what detectors drawn one by one are."""

import numpy as np
from scipy.stats import ks_2samp

from schemas.measures import TRUTH, empty
from schemas.wcs import Wcs
from simulators.catalogs import Catalog, CatalogModel, draw
from simulators.wide_catalogs import VisitCatalog, draw_visit

SHAPE, SIGMA = (2000, 2100), 1.8
SURE = CatalogModel(efficiency=1.0, false_per_megapixel=0.0, dipole_recognised=1.0, flux_floor=0.0, flagged=0.0,
                    sky_sources=0)
WCS = Wcs.tangent(30.0, -20.0, SHAPE)
KEYS = np.array([5, 2**61 + 7, 11, 12], np.uint64)
ERROR = np.array([90.0, 100.0, 110.0, 130.0])


def truth_of(counts: tuple[int, ...], seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """TRUTH of detectors, some of it blended, trailed, moved, masked or too faint."""
    rng, n = np.random.default_rng(seed), sum(counts)
    slot, rows = np.repeat(np.arange(len(counts)), counts), empty(TRUTH, n)
    rows["x"], rows["y"] = rng.uniform(0, SHAPE[1] - 1, n), rng.uniform(0, SHAPE[0] - 1, n)
    rows["truthId"] = np.arange(n)
    near = np.arange(1, n, 9)
    rows["x"][near], rows["y"][near] = rows["x"][near - 1] + 2.0, rows["y"][near - 1]
    rows["flux"] = rng.choice([-1, 1], n) * rng.uniform(300, 3000, n)
    rows["science_flux"], rows["template_flux"] = np.maximum(rows["flux"], 0), np.maximum(-rows["flux"], 0)
    rows["flux_err_optimum"] = np.where(rng.random(n) < 0.5, rng.uniform(90, 140, n), np.nan)
    rows["trail_length"], rows["trail_angle"] = np.where(rng.random(n) < 0.2, 6.0, 0.0), 30.0
    rows["separation_px"] = np.where(rng.random(n) < 0.1, 4.0, np.nan)
    rows["input_mask"] = np.where(rng.random(n) < 0.05, 1, 0)
    return rows, slot


def both(model: CatalogModel, counts: tuple[int, ...]) -> tuple[VisitCatalog, list[Catalog]]:
    truth, slot = truth_of(counts)
    whole = draw_visit(truth, slot, SHAPE, psf_sigma_px=SIGMA, flux_err=ERROR, keys=KEYS,
                       rng=np.random.default_rng(1), model=model)
    each = [draw(truth[slot == k], WCS, SHAPE, psf_sigma_px=SIGMA, flux_err=float(ERROR[k]), key=int(KEYS[k]),
                 rng=np.random.default_rng(10 + k), model=model) for k in range(4)]
    return whole, each


def test_what_the_noise_field_decides_is_the_same_to_the_bit() -> None:
    counts = (40, 0, 25, 60)
    whole, each = both(SURE, counts)
    first = np.cumsum((0, *counts))
    for k, alone in enumerate(each):
        here = whole.of(k, WCS)
        np.testing.assert_array_equal(here.truth_row - first[k], alone.truth_row)
        for name in ("psfFlux", "psfFluxErr", "snr", "isNegative", "scienceFlux", "templateFlux", "trailFlux", "xErr",
                     "bboxSize", "isDipole", "id"):
            np.testing.assert_array_equal(here.sources[name], alone.sources[name], err_msg=name)
        ra, dec = WCS.sky(np.linspace(5, 2000, 30), np.linspace(1900, 3, 30))
        assert here.pixels.force(ra, dec).tobytes() == alone.pixels.force(ra, dec).tobytes()
    assert len(each[0].sources) > 20
    assert len(whole.of(1, WCS).sources) == 0


def test_what_is_random_beside_it_is_drawn_alike() -> None:
    model = CatalogModel(efficiency=0.8, false_per_megapixel=40.0, false_shape=0.0)
    whole, each = both(model, (400, 300, 400, 500))
    ours = np.concatenate([whole.of(k, WCS).sources for k in range(4)])
    theirs = np.concatenate([one.sources for one in each])
    real = np.concatenate([whole.of(k, WCS).truth_row for k in range(4)]) >= 0
    real_there = np.concatenate([one.truth_row for one in each]) >= 0
    for a, b in ((real.sum(), real_there.sum()), ((~real).sum(), (~real_there).sum())):
        assert abs(int(a) - int(b)) < 4 * np.sqrt(int(a) + int(b))
    for name in ("reliability", "snr", "apFluxErr", "trailLength"):
        for rows, rows_there in ((ours[real], theirs[real_there]), (ours[~real], theirs[~real_there])):
            assert ks_2samp(rows[name], rows_there[name], method="asymp").pvalue > 1e-4, name
    truth, _ = truth_of((400, 300, 400, 500))
    pull = (ours["x"][real] - truth["x"][whole.truth_row[real]]) / ours["xErr"][real]
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * real.sum())


def test_ids_count_from_nought_on_each_detector_and_false_detections_stay_on_theirs() -> None:
    model = CatalogModel(false_per_megapixel=10.0, false_shape=0.0, snr_ratio=1.0, sky_sources=0)
    whole, _ = both(model, (10, 10, 0, 10))
    for k in range(4):
        here = whole.of(k, WCS)
        assert here.sources["id"].tolist() == list(range(len(here.sources)))
        false = here.truth_row < 0
        snr = np.abs(here.sources["psfFlux"][false]) / ERROR[k]
        np.testing.assert_allclose(snr, here.sources["snr"][false], rtol=1e-5)
        assert np.isin(here.pixels.flux[-false.sum():].astype("f4"), here.sources["psfFlux"][false]).all()
