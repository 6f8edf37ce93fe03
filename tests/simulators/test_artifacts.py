import numpy as np
import pytest

from schemas import mask as planes
from schemas.exposure import Visit
from schemas.wcs import Wcs
from simulators.artifacts import CCD_PX, record, satellite_tracks
from simulators.config import ArtifactConfig, CameraConfig, SimulationConfig
from simulators.kernels.detector import bleed
from simulators.psf import TruePsf, profile

SHAPE = (400, 400)
NONE = ArtifactConfig(cosmic_rays=0.0, streaks=0.0, bad_columns=0.0, bad_pixels=0.0, unknown_pixels=0.0)
PSF = TruePsf(profile(4.15, 0.6), SHAPE, np.zeros(5), np.zeros(5), np.zeros(5))


def visit(number: int = 1) -> Visit:
    return Visit(2027082200000 + number, "r", 330.0, -12.0, 20.0, 61639.2, 30.0)


def recorded(scene: np.ndarray, artifacts: ArtifactConfig = NONE, number: int = 1, seed: int = 1,
             **camera: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    config = SimulationConfig(camera=CameraConfig(ny=SHAPE[0], nx=SHAPE[1], **camera),  # type: ignore[arg-type] # ny, nx
                              artifacts=artifacts)
    v = visit(number)
    return record(scene, config, v, 94, seed, Wcs.tangent(v.ra, v.dec, SHAPE, rotation=20.0), PSF, 32.05)


def test_noise_is_that_of_photons_and_readout() -> None:
    image, mask, rows = recorded(np.full(SHAPE, 990.0))
    n = image.size
    assert abs(image.mean() - 990) < 4 * np.sqrt((990 + 77.4) / n)
    assert image.var() == pytest.approx(990 + 8.8**2, rel=4 * np.sqrt(2 / n))
    lag = np.mean((image[:, 1:] - 990) * (image[:, :-1] - 990)) / image.var()
    assert abs(lag) < 4 / np.sqrt(n)
    assert not mask.any()
    assert len(rows) == 0


def test_without_photon_noise_the_depth_would_be_wrong() -> None:
    image, _, _ = recorded(np.zeros(SHAPE))
    assert image.std() == pytest.approx(8.8, rel=0.01)      # read noise alone: 3.7 times too deep in r


def test_cosmic_rays_arrive_at_the_published_rate() -> None:
    rate = 20.0      # a hundred times the published 0.2, to count in few exposures
    artifacts = ArtifactConfig(cosmic_rays=rate, streaks=0.0, bad_columns=0.0, bad_pixels=0.0, unknown_pixels=0.0)
    found = [recorded(np.full(SHAPE, 900.0), artifacts, number)[2] for number in range(40)]
    expected = rate * 33.07 * SHAPE[0] * SHAPE[1] / CCD_PX * 40
    n = sum(len(rows) for rows in found)
    assert abs(n - expected) < 4.5 * np.sqrt(expected)
    assert {k for rows in found for k in rows["kind"]} == {b"cosmic_ray"}


def test_cosmic_rays_leave_their_charge_where_the_truth_says() -> None:
    artifacts = ArtifactConfig(cosmic_rays=20.0, streaks=0.0, bad_columns=0.0, bad_pixels=0.0, unknown_pixels=0.0)
    clean, _, _ = recorded(np.full(SHAPE, 900.0), NONE)
    image, _, rows = recorded(np.full(SHAPE, 900.0), artifacts)
    bright = np.argwhere(image - clean > 300)
    assert len(bright)
    for row in rows:
        x, y = (row["x0"] + row["x1"]) / 2, (row["y0"] + row["y1"]) / 2
        reach = np.hypot(row["x1"] - row["x0"], row["y1"] - row["y0"]) + 14
        assert (np.hypot(bright[:, 1] - x, bright[:, 0] - y) < reach).any()


def test_a_tenth_of_visits_has_a_satellite() -> None:
    config = SimulationConfig()
    n = sum(len(satellite_tracks(config, visit(k), 1)) for k in range(2000))
    assert abs(n - 200) < 4 * np.sqrt(200 * 0.9)


def test_a_satellite_trail_lies_on_its_track_with_its_width() -> None:
    artifacts = ArtifactConfig(cosmic_rays=0.0, streaks=1.0, bad_columns=0.0, bad_pixels=0.0, unknown_pixels=0.0,
                               streak_mag=(18.0, 18.1))
    found = False
    for number in range(4):
        image, _, rows = recorded(np.full(SHAPE, 900.0), artifacts, number)
        for row in rows[rows["kind"] == b"satellite"]:
            found = True
            x0, y0, x1, y1 = (float(row[k]) for k in ("x0", "y0", "x1", "y1"))
            yy, xx = np.mgrid[:SHAPE[0], :SHAPE[1]]
            distance = ((xx - x0) * (y1 - y0) - (yy - y0) * (x1 - x0)) / np.hypot(x1 - x0, y1 - y0)
            excess = image - 900
            near = np.abs(distance) < 40
            sigma = np.sqrt(np.sum((excess * distance**2)[near]) / np.sum(excess[near]))
            assert sigma * 2.3548 == pytest.approx(15.0, rel=0.1)           # 3"
            assert row["width"] == pytest.approx(15.0)
            assert excess[np.abs(distance) < 1].mean() == pytest.approx(row["peak_adu"] * 1.5, rel=0.1)
    assert found


def test_defects_stay_where_they_are_and_only_known_ones_are_masked() -> None:
    artifacts = ArtifactConfig(cosmic_rays=0.0, streaks=0.0, bad_columns=300.0, bad_pixels=800.0, unknown_pixels=400.0)
    _, first, rows = recorded(np.full(SHAPE, 900.0), artifacts, 1)
    image, second, again = recorded(np.full(SHAPE, 900.0), artifacts, 2)
    assert np.array_equal(first, second)
    assert np.array_equal(rows["x0"], again["x0"])
    hot = rows[rows["kind"] == b"hot_pixel"]
    assert len(hot)
    for row in hot:
        y, x = int(row["y0"]), int(row["x0"])
        assert image[y, x] > 1500 or first[y, x] & planes.BAD
    for row in rows[rows["kind"] == b"bad_pixel"]:
        assert first[int(row["y0"]), int(row["x0"])] & planes.BAD


def test_saturated_stars_bleed_along_columns_and_are_masked() -> None:
    scene = np.full(SHAPE, 900.0)
    PSF.draw(scene, np.array([200.0]), np.array([180.0]), np.array([4e7]), np.array([150.0]))
    image, mask, rows = recorded(scene)
    saturated = mask == planes.SAT
    ys, xs = np.nonzero(saturated)
    assert image.max() < 120_000 + 6 * 8.8
    assert np.ptp(ys) > 3 * np.ptp(xs)
    assert rows["kind"].tolist() == [b"bleed"]
    assert rows[0]["x0"] <= 200 <= rows[0]["x1"]
    assert not saturated[:, :150].any()


def test_bleeding_conserves_charge() -> None:
    image = np.full((200, 3), 100.0)
    image[80, 1] = 50_000.0
    before = image.copy()
    bleed(image, 1000.0)
    assert image.sum() == pytest.approx(before.sum())
    assert image.max() == 1000.0
    assert np.array_equal(image, plain_bleed(before, 1000.0))
    assert np.array_equal(image[:, 0], before[:, 0])


def plain_bleed(image: np.ndarray, full_well: float) -> np.ndarray:
    """The kernel's plain form: water filling, row by row."""
    out = image.copy()
    for k in range(out.shape[1]):
        for j in range(out.shape[0]):
            excess = max(out[j, k] - full_well, 0.0)
            out[j, k] -= excess
            for rows in (range(j - 1, -1, -1), range(j + 1, out.shape[0])):
                left = 0.5 * excess
                for row in rows:
                    put = min(max(full_well - out[row, k], 0.0), left)
                    out[row, k] += put
                    left -= put
    return out


def test_glints_are_five_or_more_in_a_line() -> None:
    artifacts = ArtifactConfig(cosmic_rays=0.0, streaks=0.0, bad_columns=0.0, bad_pixels=0.0, unknown_pixels=0.0,
                               glints=1.0)
    _, _, rows = recorded(np.full(SHAPE, 900.0), artifacts)
    assert 5 <= len(rows) <= 12
    centred = np.stack([rows["x0"] - rows["x0"].mean(), rows["y0"] - rows["y0"].mean()])
    assert np.linalg.svd(centred, compute_uv=False)[1] < 1e-3
