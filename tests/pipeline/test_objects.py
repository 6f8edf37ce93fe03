"""Object statistics are the definitions, applied object by object."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import ObjectsConfig
from pipeline.objects import slots, stale_rows, update
from schemas.exposure import BANDS
from schemas.table import DIA_OBJECT, DIA_SOURCE, take

NOW = 61640.0
CONFIG = ObjectsConfig()


def history_of(ids: np.ndarray, seed: int = 2) -> np.ndarray:
    rng, n = np.random.default_rng(seed), len(ids)
    rows = DIA_SOURCE.empty(n)
    rows["diaObjectId"], rows["diaSourceId"] = ids, 1 + np.arange(n)
    rows["ra"], rows["dec"] = ids * 0.01 + rng.normal(0, 3e-5, n), -20 + rng.normal(0, 3e-5, n)
    rows["raErr"], rows["decErr"] = rng.uniform(1e-5, 5e-5, (2, n))
    rows["ra_dec_Cov"] = 0.3 * rows["raErr"] * rows["decErr"]
    rows["band"] = [band.encode() for band in rng.choice(list(BANDS), n)]
    rows["midpointMjdTai"] = 61300 + rng.uniform(0, 330, n)
    rows["psfFlux"], rows["psfFluxErr"] = rng.normal(1000, 300, n), rng.uniform(50, 150, n)
    rows["scienceFlux"], rows["scienceFluxErr"] = rng.normal(5000, 300, n), rng.uniform(50, 150, n)
    return rows


def visit_of(ids: np.ndarray, seed: int = 3) -> np.ndarray:
    rows = history_of(ids, seed)
    rows["diaSourceId"] += 10**6
    rows["midpointMjdTai"], rows["band"] = 61639.9, b"r"
    return rows


def previous_of(ids: np.ndarray, count: np.ndarray | int = 0) -> np.ndarray:
    rows = DIA_OBJECT.empty(len(ids))
    rows["diaObjectId"], rows["nDiaSources"] = ids, count
    return rows


def never(n: int) -> np.ndarray:
    return np.zeros(n, bool)


def test_statistics_are_those_of_a_loop_over_objects_and_bands() -> None:
    rng = np.random.default_rng(1)
    history, ids = history_of(rng.integers(1, 41, 1500)), rng.permutation(np.arange(1, 41))
    new = visit_of(ids)
    counts = np.array([(history["diaObjectId"] == i).sum() for i in ids])
    out = update(new, previous_of(ids, counts), history, never(40), NOW, CONFIG)
    assert out["diaObjectId"].tolist() == ids.tolist()
    for row in out:
        mine = np.concatenate([history[history["diaObjectId"] == row["diaObjectId"]],
                               new[new["diaObjectId"] == row["diaObjectId"]]])
        assert row["nDiaSources"] == len(mine)
        assert row["firstDiaSourceMjdTai"] == mine["midpointMjdTai"].min()
        assert row["lastDiaSourceMjdTai"] == 61639.9
        for band in BANDS:
            check_band(row, mine[mine["band"] == band.encode()], band)


def check_band(row: np.void, mine: np.ndarray, band: str) -> None:
    assert row[f"{band}_psfFluxNdata"] == len(mine)
    if not len(mine):
        assert np.isnan(row[f"{band}_psfFluxMean"])
        assert np.isnan(row[f"{band}_psfFluxMax"])
        return
    mine = mine[np.argsort(mine["midpointMjdTai"])]
    f, e, t = (mine[name].astype(float) for name in ("psfFlux", "psfFluxErr", "midpointMjdTai"))
    expected = {"psfFluxMean": np.average(f, weights=e**-2), "psfFluxMeanErr": np.sum(e**-2) ** -0.5,
                "psfFluxMin": f.min(), "psfFluxMax": f.max(), "psfFluxErrMean": e.mean(),
                "psfFluxSigma": f.std(ddof=1) if len(f) > 1 else np.nan,
                "psfFluxMaxSlope": np.max(np.diff(f) / np.diff(t)) if len(f) > 1 else np.nan,
                "scienceFluxMean": np.average(mine["scienceFlux"], weights=mine["scienceFluxErr"].astype(float) ** -2)}
    for name, value in expected.items():
        np.testing.assert_allclose(row[f"{band}_{name}"], value, rtol=2e-5, err_msg=name)


@pytest.mark.parametrize("position", ["weighted", "mean"])
def test_positions_scatter_as_they_claim_and_weights_help(position: str) -> None:
    rng, n, k = np.random.default_rng(6), 400, 12
    ids = np.repeat(np.arange(1, n + 1), k)
    rows = history_of(ids)
    rows["raErr"] = rows["decErr"] = rng.choice([3e-5, 1.5e-4], n * k)
    rows["ra_dec_Cov"] = 0.0
    rows["ra"] = 10 + rng.normal(0, 1, n * k) * rows["raErr"] / np.cos(np.radians(60))
    rows["dec"] = 60 + rng.normal(0, 1, n * k) * rows["decErr"]
    last = np.arange(k - 1, n * k, k)
    out = update(take(rows, last), previous_of(np.arange(1, n + 1), k - 1), np.delete(rows, last), never(n), NOW,
                 ObjectsConfig(position=position))
    for offset, error in (((out["ra"] - 10) * np.cos(np.radians(60)), out["raErr"]), (out["dec"] - 60, out["decErr"])):
        pull = offset / error
        assert abs(pull.mean()) < 4 / np.sqrt(n)
        assert abs(pull.std() - 1) < 4 / np.sqrt(2 * n)
    radial = np.hypot((out["ra"] - 10) * 0.5, out["dec"] - 60).mean() * 3600
    assert radial < 0.06 if position == "weighted" else radial > 0.10


def test_a_new_object_is_its_source() -> None:
    new = visit_of(np.array([7, 9]))
    blank = previous_of(np.array([0, 0]))
    out = update(new, blank, DIA_SOURCE.empty(0), never(2), NOW, CONFIG)
    assert out["nDiaSources"].tolist() == [1, 1]
    np.testing.assert_allclose(out["ra"], new["ra"], atol=1e-11)
    np.testing.assert_allclose(out["raErr"], np.maximum(new["raErr"], np.float32(0.02 / 3600)), rtol=1e-5)
    np.testing.assert_allclose(out["r_psfFluxMean"], new["psfFlux"], rtol=1e-6)
    assert np.isnan(out["r_psfFluxSigma"]).all()
    assert out["validityStartMjdTai"].tolist() == [NOW, NOW]
    assert np.isnan(out["validityEndMjdTai"]).all()


def test_a_version_that_preload_did_not_see_stands_in_for_the_sources_not_loaded() -> None:
    ids = np.arange(1, 31)
    history = history_of(np.repeat(ids, 9))
    history["band"] = b"r"
    middle = history_of(ids, seed=8)
    middle["band"], middle["diaSourceId"], middle["midpointMjdTai"] = b"r", middle["diaSourceId"] + 10**5, 61639.8
    new = visit_of(ids)
    between = update(middle, previous_of(ids, 9), history, never(30), NOW - 1, CONFIG)
    full = update(new, between, np.concatenate([history, middle]), never(30), NOW, CONFIG)
    stale = update(new, between, history, np.ones(30, bool), NOW, CONFIG)
    assert stale["nDiaSources"].tolist() == [11] * 30
    for name in ("psfFluxMean", "psfFluxMeanErr", "psfFluxMin", "psfFluxMax", "psfFluxErrMean", "psfFluxNdata",
                 "scienceFluxMean", "scienceFluxMeanErr"):
        np.testing.assert_allclose(stale[f"r_{name}"], full[f"r_{name}"], rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(stale["r_psfFluxSigma"], full["r_psfFluxSigma"], rtol=0.15)   # about another mean
    np.testing.assert_allclose(stale["firstDiaSourceMjdTai"], full["firstDiaSourceMjdTai"])
    apart = np.hypot(stale["ra"] - full["ra"], stale["dec"] - full["dec"]) * 3600
    assert np.median(apart) < 0.02


def test_stale_objects_are_those_with_another_version_or_none() -> None:
    loaded, now = previous_of(np.array([3, 1, 2])), previous_of(np.array([1, 2, 3, 4]))
    loaded["validityStartMjdTai"] = (30.0, 10.0, 20.0)
    now["validityStartMjdTai"] = (10.0, 21.0, 30.0, 40.0)
    assert stale_rows(now, loaded).tolist() == [False, True, False, True]
    assert stale_rows(now, DIA_OBJECT.empty(0)).all()


def test_bad_fluxes_and_other_objects_do_not_count() -> None:
    history = history_of(np.array([1, 1, 1, 2]))
    history["band"] = b"r"
    history["psfFlux"][0], history["psfFluxErr"][1] = np.nan, 0.0
    out = update(visit_of(np.array([1])), previous_of(np.array([1]), 3), history, never(1), NOW, CONFIG)
    assert out["r_psfFluxNdata"][0] == 2
    assert out["nDiaSources"][0] == 4


def test_slots_find_ids_in_any_order() -> None:
    assert slots(np.array([5, 7, 5, 9]), np.array([9, 5])).tolist() == [1, -1, 1, 0]
    assert slots(np.array([5]), np.array([], int)).tolist() == [-1]
    assert slots(np.array([], int), np.array([5])).tolist() == []


def test_an_unknown_kind_of_position_is_named() -> None:
    with pytest.raises(ValueError, match="weighted or mean, got 'median'"):
        update(visit_of(np.array([1])), previous_of(np.array([1])), DIA_SOURCE.empty(0), never(1), NOW,
               ObjectsConfig(position="median"))


def test_the_statistics_of_a_real_alert_are_those_of_its_history(shared_data: Path) -> None:
    """Public alerts of 2026-03-05: diaObject against prvDiaSources and trigger; the real position is a plain mean."""
    from pipeline.alerts.read import read_packet

    alert = read_packet((shared_data / "rubin_alerts" / "170094456248729605.bin").read_bytes())
    rows = np.concatenate([row_of(source) for source in [*alert["prvDiaSources"], alert["diaSource"]]])
    real = alert["diaObject"]
    rows["diaObjectId"] = real["diaObjectId"]
    out = update(rows[-1:], previous_of(np.array([real["diaObjectId"]]), len(rows) - 1), rows[:-1], never(1), NOW,
                 ObjectsConfig(position="mean"))[0]
    for name in ("psfFluxMean", "psfFluxMeanErr", "psfFluxSigma", "psfFluxNdata", "psfFluxMin", "psfFluxMax",
                 "psfFluxMaxSlope", "psfFluxErrMean", "scienceFluxMean", "scienceFluxMeanErr"):
        np.testing.assert_allclose(out[f"i_{name}"], real[f"i_{name}"], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose([out["ra"], out["dec"]], [real["ra"], real["dec"]], atol=1e-9)
    assert out["nDiaSources"] == real["nDiaSources"]


def row_of(source: dict[str, object]) -> np.ndarray:
    row = DIA_SOURCE.empty(1)
    for name, value in source.items():
        if value is not None and name in (row.dtype.names or ()):
            row[name] = value.encode() if isinstance(value, str) else value
    return row
