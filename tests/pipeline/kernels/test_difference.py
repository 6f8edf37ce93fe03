"""The passes of differencing against their plain forms, and how much faster they are."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.kernels import difference as passes
from pipeline.kernels.difference import BAD, BIN, FULL, HOLE, WRONG

SHAPE = (61, 83)
SEEDS = st.integers(0, 2**31)


def plane(rng: np.random.Generator, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return rng.normal(100.0, 10.0, shape).astype(np.float32)


def bits(rng: np.random.Generator, choices: tuple[int, ...], share: float = 0.1) -> np.ndarray:
    return np.where(rng.random(SHAPE) < share, rng.choice(choices, SHAPE), 0).astype(np.int32)


def polynomial(square: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    v, u = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    return np.asarray(sum(square[q, p] * u**p * v**q for q in range(len(square)) for p in range(len(square))))


def upsampled(coarse: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    y, x = ((np.arange(n) - (BIN - 1) / 2) / BIN for n in shape)
    y, x = np.clip(y, 0, coarse.shape[0] - 1), np.clip(x, 0, coarse.shape[1] - 1)
    return np.asarray(ndimage.map_coordinates(coarse, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest"))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_flags_follow_masks_and_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, variance, mask = plane(rng), plane(rng), bits(rng, (1, 2, 4, 8))
    image[rng.random(SHAPE) < 0.02] = np.nan
    variance[rng.random(SHAPE) < 0.02] = rng.choice([0.0, -1.0, np.inf])
    flags, filled = np.zeros(SHAPE, np.uint8), np.empty(SHAPE, np.float32)
    holes = sum(passes.sort_out(image, variance, mask, 1, 1 | 2, 2 | 4, 8, 4, *rows, flags, filled)
                for rows in ((0, 20), (20, SHAPE[0])))
    hole = ~np.isfinite(image) | ~np.isfinite(variance) | ~(variance > 0) | (mask & 1 != 0)
    expected = (np.where(hole, HOLE, 0) | np.where(hole | (mask & 3 != 0), BAD, 0)
                | np.where(hole | (mask & 6 != 0), WRONG, 0) | np.where(mask & 8 != 0, FULL, 0))
    assert np.array_equal(flags, expected << 4)
    assert np.array_equal(filled, np.where(hole, 0, image))
    assert holes == hole.sum()


def test_wrong_pixels_take_the_other_image_or_nothing() -> None:
    science, template = np.full((3, 3), 5.0, np.float32), np.full((3, 3), 7.0, np.float32)
    flags = np.zeros((3, 3), np.uint8)
    flags[0, 0], flags[1, 1], flags[2, 2] = WRONG, WRONG << 4, WRONG | WRONG << 4
    passes.fill(flags, 0, 3, science, template)
    assert (science[0, 0], template[0, 0]) == (7, 7)
    assert (science[1, 1], template[1, 1]) == (5, 5)
    assert (science[2, 2], template[2, 2]) == (0, 0)
    assert (science[0, 1], template[0, 1]) == (5, 7)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.floats(0.01, 0.6))
def test_groups_are_connected_pixels(seed: int, share: float) -> None:
    marked = np.random.default_rng(seed).random(SHAPE) < share
    flat = passes.flagged(np.where(marked, FULL, BAD).astype(np.uint8), FULL)
    assert np.array_equal(flat, np.flatnonzero(marked))
    labels = ndimage.label(marked, np.ones((3, 3)))[0]
    assert np.array_equal(passes.connected(flat, SHAPE[1]) + 1, labels.ravel()[flat])


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_bins_hold_sums_over_good_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, flags = plane(rng), np.where(rng.random(SHAPE) < 0.2, BAD << 4, HOLE).astype(np.uint8)
    rows, columns = SHAPE[0] // BIN, SHAPE[1] // BIN
    total, count = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.float32)
    for start in range(0, rows, 4):
        passes.binned(image, flags, BAD << 4, start, min(start + 4, rows), total, count)
    good = (flags & (BAD << 4) == 0)[:rows * BIN, :columns * BIN].reshape(rows, BIN, columns, BIN)
    cut = image[:rows * BIN, :columns * BIN].reshape(rows, BIN, columns, BIN)
    assert np.allclose(total, (cut * good).sum(axis=(1, 3)), rtol=1e-5)
    assert np.array_equal(count, good.sum(axis=(1, 3)))


@pytest.mark.parametrize("shape", [(64, 80), (61, 83)])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_smooth_planes_are_added(shape: tuple[int, int], order: int) -> None:
    rng = np.random.default_rng(order)
    square, coarse = rng.normal(size=(order + 1, order + 1)), plane(rng, (shape[0] // BIN, shape[1] // BIN))
    image = plane(rng, shape)
    out = image.copy()
    passes.add_smooth(square, -1.0, coarse, 0, 30, out)
    passes.add_smooth(square, -1.0, coarse, 30, shape[0], out)
    assert np.allclose(out, image - polynomial(square, shape) - upsampled(coarse, shape), atol=2e-4)
    flat = image.copy()
    passes.add_smooth(square, 1.0, np.zeros((0, 0), np.float32), 0, shape[0], flat)
    assert np.allclose(flat, image + polynomial(square, shape), atol=1e-4)


def test_a_variance_is_spread_by_a_separable_kernel() -> None:
    rng = np.random.default_rng(3)
    variance, flags = plane(rng), np.where(rng.random(SHAPE) < 0.1, HOLE, 0).astype(np.uint8)
    down, across = np.array([0.1, 0.5, 0.2], np.float32), np.array([0.05, 0.1, 0.6, 0.2, 0.01], np.float32)
    out = np.zeros(SHAPE, np.float32)
    passes.spread(variance, flags, HOLE, 90.0, down, across, 0, SHAPE[0], out)
    filled = np.where(flags == HOLE, 90.0, variance)
    expected = ndimage.convolve1d(ndimage.convolve1d(filled, down, 0, mode="nearest"), across, 1, mode="nearest")
    assert np.allclose(out, expected, rtol=1e-5)


def test_differences_leave_bad_pixels_at_zero() -> None:
    rng = np.random.default_rng(4)
    science, matched, flags = plane(rng), plane(rng), np.where(rng.random(SHAPE) < 0.1, BAD, 0).astype(np.uint8)
    out = np.empty(SHAPE, np.float32)
    passes.minus(science, matched, flags, BAD, 0, SHAPE[0], out)
    assert np.array_equal(out, np.where(flags == BAD, 0, science - matched))


def test_tiles_are_combined_and_assembled() -> None:
    rng = np.random.default_rng(8)
    transforms, spectrum = ((rng.normal(size=n) + 1j * rng.normal(size=n)).astype(np.complex64)
                            for n in ((6, 16, 9), (16, 9)))
    weights = rng.normal(size=(3, 6)).astype(np.float32)
    out = np.empty((3, 16, 9), np.complex64)
    passes.combine(weights, *(plane.view(np.float32) for plane in (transforms, spectrum, out)))
    assert np.allclose(out, np.tensordot(weights, transforms, axes=1) * spectrum, atol=1e-5)
    parts = rng.normal(size=(3, 16, 18)).astype(np.float32)
    u, v, tile = rng.normal(size=10).astype(np.float32), rng.normal(size=8).astype(np.float32), np.empty((8, 10),
                                                                                                       np.float32)
    passes.assemble(parts, 3, v, u, tile)
    inner = parts[:, 3:11, 3:13]
    assert np.allclose(tile, inner[0] + u * inner[1] + v[:, None] * inner[2], atol=1e-5)
    passes.assemble(parts[:1], 3, v, u, tile)
    assert np.array_equal(tile, inner[0])


def _composed(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs of the variance, and the variance in plain NumPy."""
    given = {"ours": plane(rng, shape), "theirs": plane(rng, shape), "matched": plane(rng, shape),
             "flags": np.where(rng.random(shape) < 0.1, HOLE, 0).astype(np.uint8),
             "gains": rng.uniform(0.5, 1.0, (2, 3, 3)), "errors": np.array([0.3, 0.2, 0.01], np.float32),
             "doubt": plane(rng, (shape[0] // BIN, shape[1] // BIN))}
    return given, plain_variance(given)


def plain_variance(given: dict[str, np.ndarray]) -> np.ndarray:
    shape = given["ours"].shape
    slope_y, slope_x = np.gradient(given["matched"])
    slope_x[:, [0, -1]] = 0
    a, b = (polynomial(g, (shape[0], shape[1])) for g in given["gains"])
    e = given["errors"]
    return np.asarray(a * np.where(given["flags"] == HOLE, 90.0, given["ours"]) + b * given["theirs"]
                      + e[0] * slope_x**2 + e[1] * slope_y**2 + e[2] * given["matched"]**2
                      + upsampled(given["doubt"], (shape[0], shape[1])))


def composed(given: dict[str, np.ndarray], mask: np.ndarray, image: np.ndarray, variance: np.ndarray) -> None:
    passes.compose(given["ours"], given["theirs"], given["flags"], 90.0, *given["gains"], given["matched"],
                   given["errors"], given["doubt"], mask, 256, 0, len(image), image, variance)


def test_the_variance_is_the_sum_of_its_terms() -> None:
    rng = np.random.default_rng(5)
    given, expected = _composed(rng, SHAPE)
    mask, image, variance = bits(rng, (256, 3)), plane(rng), np.empty(SHAPE, np.float32)
    before = image.copy()
    composed(given, mask, image, variance)
    assert np.allclose(variance, expected, rtol=1e-4)
    assert np.array_equal(image, np.where(mask & 256 != 0, 0, before))
    flat = np.flatnonzero(rng.random(SHAPE) < 0.3)
    ratio = np.empty(len(flat), np.float32)
    passes.ratios(before, given["ours"], given["theirs"], given["flags"], 90.0, *given["gains"], flat, 0, 100, ratio)
    passes.ratios(before, given["ours"], given["theirs"], given["flags"], 90.0, *given["gains"], flat, 100, len(flat),
                  ratio)
    given["errors"][:], given["doubt"][:] = 0, 0
    assert np.allclose(ratio, (before / np.sqrt(plain_variance(given))).ravel()[flat], rtol=1e-4)


def test_doubt_spreads_group_by_group() -> None:
    rng = np.random.default_rng(6)
    kernel = rng.random((5, 5)).astype(np.float32)
    flat, group = np.array([0, 1, 30 * 83 + 40, 60 * 83 + 82]), np.array([0, 0, 1, 2])
    light = np.array([3.0, 4.0, 5.0, 6.0], np.float32)
    variance = np.zeros(SHAPE, np.float32)
    passes.add_doubt(variance, flat, group, light, kernel, 0.5)
    expected = np.zeros(SHAPE)
    for number in range(3):
        lit = np.zeros(SHAPE)
        lit.ravel()[flat[group == number]] = light[group == number]
        expected += 0.5 * ndimage.convolve(lit, kernel, mode="constant") ** 2
    assert np.allclose(variance, expected, rtol=1e-5)


def _bumps(x: np.ndarray, y: np.ndarray, flux: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[:SHAPE[0], :SHAPE[1]]
    return np.asarray(sum(f * np.exp(-((columns - a) ** 2 + (rows - b) ** 2) / 8.0) for a, b, f in
                          zip(x, y, flux, strict=True)), np.float32)


def test_small_shifts_are_taken_off_and_large_ones_and_changes_of_flux_stay() -> None:
    x, y, flux = np.array([15.0, 40.0, 65.0, 3.0]), np.array([30.0, 30.0, 30.0, 30.0]), np.full(4, 1e4)
    matched = _bumps(x, y, flux)
    science = _bumps(x + np.array([0.03, 0.5, -0.02, 0.03]), y + np.array([-0.02, 0.0, 0.01, 0.0]),
                     flux * np.array([1.0, 1.0, 1.1, 1.0]))
    raw, noise = science - matched, np.full(SHAPE, 50.0, np.float32)
    before, scatter = raw.copy(), np.array([0.03, 0.02])
    found = passes.settle(raw, matched, noise, noise, np.zeros(SHAPE, np.uint8), BAD, x.astype(int), y.astype(int), 6.0,
                          scatter, 4.0)
    assert found[0] == pytest.approx([0.03, -0.02], rel=0.02)
    assert found[2] == pytest.approx([-0.022, 0.011], rel=0.02)     # of a source that is brighter by a tenth
    assert np.isnan(found[[1, 3]]).all()      # too far, and at the border
    columns = np.arange(SHAPE[1])
    assert np.abs(raw[26:35, 11:20]).max() < 0.03 * np.abs(before[26:35, 11:20]).max()
    assert np.array_equal(raw[:, (columns > 30) & (columns < 55)], before[:, (columns > 30) & (columns < 55)])
    assert raw[30, 65] == pytest.approx(1000.0, rel=0.02)

    expected = _settled(before, matched, noise, x[0], y[0], 6.0, scatter)
    assert found[0] == pytest.approx(expected, rel=1e-4)


def _settled(raw: np.ndarray, matched: np.ndarray, noise: np.ndarray, x: float, y: float, radius: float,
             scatter: np.ndarray) -> np.ndarray:
    """The fit in plain NumPy: both shifts with their prior, beside a change of flux."""
    rows, columns = np.mgrid[:SHAPE[0], :SHAPE[1]]
    here = np.hypot(columns - x, rows - y) <= radius
    fine = np.array([-1.0, 8.0, 0.0, -8.0, 1.0]) / 12.0
    slope_y, slope_x = (ndimage.convolve1d(matched.astype(float), fine, axis) for axis in (0, 1))
    design = np.stack([-slope_x[here], -slope_y[here], matched[here].astype(float)], axis=1)
    weight = 1.0 / (2.0 * noise[here])
    normal = design.T @ (design * weight[:, None]) + np.diag([*(1.0 / scatter**2), 0.0])
    return np.asarray(np.linalg.solve(normal, design.T @ (weight * raw[here]))[:2])


def test_a_bad_pixel_leaves_its_source_alone() -> None:
    x, y = np.array([40.0]), np.array([30.0])
    matched = _bumps(x, y, np.array([1e4]))
    raw, noise, flags = _bumps(x + 0.02, y, np.array([1e4])) - matched, np.ones(SHAPE, np.float32), np.zeros(SHAPE,
                                                                                                           np.uint8)
    flags[31, 42] = BAD
    before = raw.copy()
    found = passes.settle(raw, matched, noise, noise, flags, BAD, np.array([40]), np.array([30]), 6.0,
                          np.array([0.03, 0.03]), 4.0)
    assert np.isnan(found).all()
    assert np.array_equal(raw, before)


def grown(mask: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    out = np.zeros_like(mask)
    radius = int(np.abs(offsets).max()) if len(offsets) else 0
    wide = np.pad(mask, radius)
    for dy, dx in offsets:
        out |= wide[radius - dy:radius - dy + mask.shape[0], radius - dx:radius - dx + mask.shape[1]]
    return out


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(0, 3), st.integers(0, 4), st.floats(0.002, 0.4))
def test_masks_are_merged_and_grown(seed: int, ours: int, theirs: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    science, template = bits(rng, (1, 2, 3, 64), share), bits(rng, (1, 2, 4, 6), share)
    template = ndimage.grey_dilation(template, (3, 3)).astype(np.int32)      # regions with an inside
    flags = np.where(rng.random(SHAPE) < 0.01, HOLE << 4, 0).astype(np.uint8)
    offsets = [np.ascontiguousarray(np.argwhere(np.hypot(*np.mgrid[-r:r + 1, -r:r + 1]) <= r) - r)
               for r in (ours, theirs)]
    out = np.empty(SHAPE, np.int32)
    for rows in ((0, 20), (20, 23), (23, SHAPE[0])):
        passes.merge(science, template, flags, ~64, 1, np.array([(2, 128), (4, 128)], np.int32), 256, *offsets, *rows,
                     out)
    named = (template & 1) | np.where(template & 6 != 0, 128, 0)
    assert np.array_equal(out, grown(science & ~64, offsets[0]) | grown(named, offsets[1])
                          | np.where(flags != 0, 256, 0))


def test_the_variance_in_one_pass_is_faster_than_plane_by_plane() -> None:
    given, _ = _composed(np.random.default_rng(7), (1000, 1000))
    mask, image, variance = np.zeros((1000, 1000), np.int32), given["ours"].copy(), np.empty((1000, 1000), np.float32)
    times = []
    for work in (lambda: composed(given, mask, image, variance), lambda: plain_variance(given)):
        work()
        begun = time.process_time()
        for _ in range(3):
            work()
        times.append(time.process_time() - begun)
    assert times[0] < times[1] / 5
