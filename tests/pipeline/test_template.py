"""Templates: selection, coadd, artifacts, warp, PSF and noise."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipeline import interpolate
from pipeline.config import TemplateConfig
from pipeline.errors import NoWorkFound
from pipeline.images import Calibrated, Template
from pipeline.kernels.resample import resample
from pipeline.psf import Psf
from pipeline.template import GridMap, Quality, coadd, rotated, select, warp, warped_acf
from schemas import mask as planes
from schemas.wcs import ARCSEC, Wcs
from tests.pipeline import fields

CONFIG = TemplateConfig()
SHAPE = (220, 240)


def dithered(n: int, shape: tuple[int, int] = SHAPE, *, turn: bool = True) -> list[Wcs]:
    """WCS of n visits, some arcsec apart and turned at random."""
    rng = np.random.default_rng(5)
    return [Wcs.tangent(150.0 + rng.normal() * 2 * ARCSEC, -30.0 + rng.normal() * 2 * ARCSEC, shape,
                        rotation=float(rng.uniform(-180, 180)) if turn else 0.0) for _ in range(n)]


def visits(n: int, **options: float) -> list[Calibrated]:
    """n visits of one field, exactly calibrated."""
    widths = [3.5, 3.7, 3.6, 4.0, 3.8, 3.9]
    return [fields.known(fields.make(seed=i, shape=SHAPE, wcs=w, fwhm=widths[i % 6], visit=i, **options))
            for i, w in enumerate(dithered(n))]


def blank_visits(n: int, sigma: Sequence[float], shape: tuple[int, int] = SHAPE) -> list[Calibrated]:
    """n visits of an empty sky with white noise."""
    out = []
    for i, w in enumerate(dithered(n, shape)):
        base = fields.known(fields.make(seed=i, shape=shape, wcs=w, density=0.0, visit=i))
        noise = np.random.default_rng([i, 2]).normal(0, sigma[i], shape)
        out.append(replace(base, image=noise.astype(np.float32), variance=np.full(shape, sigma[i] ** 2, np.float32)))
    return out


def template_of(c: Calibrated) -> Template:
    return Template(c.visit.band, c.image, c.variance, c.mask, c.psf, c.wcs, np.ones(c.shape, np.int16), c.noise_acf)


def fitted(image: np.ndarray, psf: Psf, x: float, y: float) -> tuple[float, float, float]:
    """Flux and centroid of a point source by least squares with equal weights."""
    half, i, j = 9, round(x), round(y)
    data = image[j - half:j + half + 1, i - half:i + half + 1].astype(float)
    dx, dy, flux = x - i, y - j, 0.0
    for _ in range(6):
        model, left, right, down, up = (interpolate.shifted(psf.at(x, y)[None], np.array([dx + a]), np.array([dy + b]),
                                                            2 * half + 1)[0]
                                        for a, b in ((0, 0), (-.05, 0), (.05, 0), (0, -.05), (0, .05)))
        if flux == 0.0:
            flux = float((data * model).sum() / (model**2).sum())
        design = np.stack([model, flux * (right - left) / 0.1, flux * (up - down) / 0.1], axis=-1).reshape(-1, 3)
        step = np.linalg.lstsq(design, (data - flux * model).ravel(), rcond=None)[0]
        flux, dx, dy = flux + step[0], dx + step[1], dy + step[2]
    return flux, i + dx, j + dy


def acf_of(image: np.ndarray, good: np.ndarray, k: int) -> np.ndarray:
    """Autocorrelation of a noise image, by pairs."""
    v = np.where(good, image - image[good].mean(), 0).astype(float)
    out = np.zeros((2 * k + 1, 2 * k + 1))
    for j in range(-k, k + 1):
        for i in range(-k, k + 1):
            a = np.roll(v, (j, i), (0, 1))
            both = good & np.roll(good, (j, i), (0, 1))
            out[k + j, k + i] = (v * a)[both].mean()
    return out / out[k, k]


# --- selection -------------------------------------------------------------------------------------------------------

def test_the_best_seeing_third_is_chosen_and_at_least_six() -> None:
    seeing = [Quality(0.7 + 0.01 * ((7 * i) % 30)) for i in range(30)]
    chosen = select(seeing, CONFIG)
    assert len(chosen) == 10
    assert max(seeing[i].fwhm_arcsec for i in chosen) < min(
        q.fwhm_arcsec for i, q in enumerate(seeing) if i not in chosen)
    assert len(select(seeing[:12], CONFIG)) == 6
    assert len(select(seeing[:4], CONFIG)) == 4


def test_incremental_templates_take_twelve_sharp_and_clear_visits() -> None:
    config = TemplateConfig(incremental=True)
    qualities = [Quality(0.8 + 0.04 * i) for i in range(30)]
    qualities[0] = Quality(0.8, zeropoint_scale=0.5)
    chosen = select(qualities, config)
    assert chosen == tuple(range(1, 13))
    assert len(select([Quality(1.5), Quality(1.39)], config)) == 1


# --- the kernel and the map ------------------------------------------------------------------------------------------

def plain_resample(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What the kernel does to the image, in NumPy, for positions far from the border."""
    half = interpolate.HALF
    left, low = np.floor(x).astype(int), np.floor(y).astype(int)
    wx, wy = interpolate.weights((x - left).ravel()), interpolate.weights((y - low).ravel())
    k = np.arange(1 - half, half + 1)
    patch = image[(low.ravel()[:, None] + k)[:, :, None], (left.ravel()[:, None] + k)[:, None, :]]
    return np.einsum("ni,nij,nj->n", wy, patch, wx).reshape(x.shape)


def test_kernel_equals_its_plain_form() -> None:
    image = np.random.default_rng(1).normal(size=(80, 90)).astype(np.float32)
    mask = np.zeros(image.shape, np.int32)
    mask[40, 45] = planes.SAT
    turned = Wcs.tangent(10, 20, (60, 50), rotation=25.0)
    grid = GridMap.between(turned, (48, 40), Wcs.tangent(10, 20, image.shape))
    out, variance = np.empty((48, 40), np.float32), np.empty((48, 40), np.float32)
    bits = np.empty((48, 40), np.int32)
    resample(image, np.full(image.shape, 2, np.float32), mask, grid.x, grid.y, 16, 0, interpolate.table(), out,
             variance, bits, planes.NO_DATA)
    x, y = grid.at(*np.meshgrid(np.arange(40.0), np.arange(48.0)))
    inside = (x > 4) & (x < 85) & (y > 4) & (y < 75)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(out[inside], plain_resample(image, x[inside], y[inside]), atol=2e-6)
    white = [(interpolate.weights((v - np.floor(v))[inside]) ** 2).sum(axis=1) for v in (x, y)]
    np.testing.assert_allclose(variance[inside], 2 * white[0] * white[1], rtol=1e-4)
    near = np.hypot(x - 45, y - 40)
    assert (bits[near < 0.7] & planes.SAT).all()
    assert not (bits[near > 1.5] & planes.SAT).any()


def test_interpolated_maps_follow_the_exact_wcs() -> None:
    sip = replace(Wcs.tangent(150, -30, (4000, 4000), rotation=40.0), kind="TAN-SIP",
                  distortion_x=((2, 0, 0, 3e-7), (0, 2, 0, -2e-7)), distortion_y=((1, 1, 0, 4e-7),))
    other = Wcs.tangent(150.02, -30.03, (4000, 4000), rotation=-70.0)
    grid = GridMap.between(other, (4000, 4000), sip)
    x, y = np.random.default_rng(1).uniform(0, 3999, (2, 500))
    found = np.hypot(*np.subtract(grid.at(x, y), sip.pixels(*other.sky(x, y))))
    assert np.max(found) < 1e-3


def test_interpolation_of_a_star_is_good_to_a_thousandth_of_its_peak() -> None:
    for fwhm, tolerance in ((3.3, 2.0e-3), (4.0, 1.0e-3), (5.0, 1.0e-3)):
        stamp = fields.psf_stamp(41, fwhm)
        moved = interpolate.shifted(stamp[None], np.array([0.5]), np.array([-0.25]))[0]
        assert np.abs(moved - fields.psf_stamp(41, fwhm, dx=0.5, dy=-0.25)).max() < tolerance * stamp.max()


# --- warp ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("rotation", [0.0, 33.0, 90.0, -137.0])
def test_warp_keeps_fluxes_and_positions(rotation: float) -> None:
    field = fields.make(seed=1, shape=SHAPE, fwhm=3.5, ellipticity=0.15, density=250, magnitudes=(17.5, 19.0),
                        sky_seed=11)
    source = template_of(fields.known(field))
    source = replace(source, image=((field.noiseless - field.sky) * 10 ** (0.4 * (31.4 - field.zeropoint))
                                    ).astype(np.float32))
    grid = Wcs.tangent(150.0003, -30.0002, SHAPE, rotation=rotation)
    warped = warp(source, grid, SHAPE, CONFIG)
    x, y = grid.pixels(*field.wcs.sky(field.x, field.y))
    inside = (x > 20) & (x < SHAPE[1] - 21) & (y > 20) & (y < SHAPE[0] - 21)
    inside &= np.array([np.sort(np.hypot(field.x - a, field.y - b))[1] > 25
                        for a, b in zip(field.x, field.y, strict=True)])
    inside &= (field.x > 12) & (field.x < SHAPE[1] - 13) & (field.y > 12) & (field.y < SHAPE[0] - 13)
    assert inside.sum() >= 3
    for k in np.flatnonzero(inside):
        flux, fx, fy = fitted(warped.image, warped.psf, x[k], y[k])
        assert np.hypot(fx - x[k], fy - y[k]) * 0.2 < 0.005        # 5 mas
        assert flux / field.flux[k] == pytest.approx(1.0, abs=2e-3)    # the light beyond the PSF's stamp is 1e-3


def test_warped_psf_is_the_psf_of_warped_stars() -> None:
    stamp = fields.psf_stamp(41, 3.5, 3.0, 0.2, 0.0)
    image = np.zeros(SHAPE, np.float32)
    image[89:130, 99:140] = stamp
    base = fields.known(fields.make(shape=SHAPE, density=0.0))
    source = replace(template_of(base), image=image, psf=Psf.constant(stamp, SHAPE))
    grid = Wcs.tangent(150.0, -30.0, SHAPE, rotation=50.0)
    warped = warp(source, grid, SHAPE, CONFIG)
    x, y = grid.pixels(*base.wcs.sky(119, 109))
    model = interpolate.shifted(warped.psf.at(x, y)[None], np.array([x - round(float(x))]),
                                np.array([y - round(float(y))]))[0]
    seen = warped.image[round(float(y)) - 20:round(float(y)) + 21, round(float(x)) - 20:round(float(x)) + 21]
    assert np.abs(seen - model).max() < 3e-3 * model.max()
    upright = interpolate.shifted(stamp[None], np.array([x - round(float(x))]), np.array([y - round(float(y))]))[0]
    assert np.abs(seen - upright).max() > 0.02 * model.max()      # the PSF must turn with the grid


def test_warp_marks_what_the_template_does_not_cover() -> None:
    base = template_of(fields.known(fields.make(shape=SHAPE, density=0.0)))
    shifted = Wcs.tangent(150.0, -30.0 + 60 * 0.2 * ARCSEC, SHAPE)
    warped = warp(base, shifted, SHAPE, CONFIG)
    missing = (warped.mask & planes.NO_DATA) > 0
    assert missing.mean() == pytest.approx(60 / SHAPE[0], abs=0.01)
    assert (warped.n_inputs[missing] == 0).all()
    assert (warped.n_inputs[~missing] == 1).all()
    assert np.isfinite(warped.variance).all()
    assert (warped.variance > 0).all()


def test_warp_without_overlap_is_no_work() -> None:
    base = template_of(fields.known(fields.make(shape=SHAPE, density=0.0)))
    with pytest.raises(NoWorkFound, match="no overlap"):
        warp(base, Wcs.tangent(151.0, -30.0, SHAPE), SHAPE, CONFIG)


def test_a_shift_by_whole_pixels_changes_nothing() -> None:
    base = blank_visits(1, [1.0])[0]
    moved = warp(template_of(base), base.wcs.shifted(5, 7), (200, 200), CONFIG)
    np.testing.assert_array_equal(moved.image, base.image[7:207, 5:205])
    assert moved.noise_acf.shape == (1, 1)
    np.testing.assert_allclose(moved.variance, 1.0, rtol=1e-5)


# --- noise -----------------------------------------------------------------------------------------------------------

def test_coadded_noise_falls_as_the_root_of_the_number_of_visits() -> None:
    shape = (300, 300)
    inputs = blank_visits(5, [1.0] * 5, shape)
    grid = Wcs.tangent(150.0, -30.0, (180, 180), rotation=12.0)
    template = coadd(inputs, grid, (180, 180), TemplateConfig(reject_artifacts=False))
    good = template.n_inputs == 5
    assert good.mean() > 0.95
    # the variance plane is that of the pixels, and the noise on large scales that of white noise over five
    assert template.image[good].std() / np.sqrt(template.variance[good].mean()) == pytest.approx(1.0, abs=0.025)
    total = float(template.variance[good].mean()) * template.noise_acf.sum()
    assert total == pytest.approx(1 / 5, rel=0.03)


def test_unequal_visits_are_weighted_by_their_noise() -> None:
    shape = (240, 240)
    inputs = blank_visits(2, [1.0, 2.0], shape)
    grid = Wcs.tangent(150.0, -30.0, (150, 150))
    template = coadd(inputs, grid, (150, 150), TemplateConfig(reject_artifacts=False))
    total = float(template.variance[template.n_inputs == 2].mean()) * template.noise_acf.sum()
    assert total == pytest.approx(1 / (1 + 1 / 4), rel=0.03)


def test_predicted_noise_correlation_is_what_warped_noise_has() -> None:
    shape = (400, 400)
    white = blank_visits(1, [1.0], shape)[0]
    once = warp(template_of(white), Wcs.tangent(150, -30, (270, 270), rotation=20), (270, 270), CONFIG)
    twice = warp(once, Wcs.tangent(150, -30, (180, 180), rotation=-30), (180, 180), CONFIG)
    for warped in (once, twice):
        good = (warped.mask & planes.NO_DATA) == 0
        measured = acf_of(warped.image, good, 2)
        k = warped.noise_acf.shape[0] // 2
        predicted = warped.noise_acf[k - 2:k + 3, k - 2:k + 3]
        assert np.abs(measured - predicted).max() < 5 / np.sqrt(good.sum())
        assert warped.image[good].var() == pytest.approx(float(warped.variance[good].mean()), rel=0.04)
    assert once.noise_acf[5, 6] > 0.05      # a control: the warp does correlate


def test_correlation_of_the_input_passes_through_an_identity() -> None:
    acf = np.zeros((11, 11))
    acf[5, 5], acf[5, 4], acf[5, 6] = 1.0, 0.2, 0.2
    grid = GridMap.between(Wcs.tangent(1, 2, SHAPE), SHAPE, Wcs.tangent(1, 2, SHAPE))
    out, excess = warped_acf(acf, grid)
    np.testing.assert_allclose(out, acf, atol=1e-9)
    assert excess == pytest.approx(1.0)


# --- coadd -----------------------------------------------------------------------------------------------------------

def test_fluxes_on_the_coadd_are_the_stars_and_its_psf_fits_them() -> None:
    inputs = visits(4, density=300, magnitudes=(17.5, 20.0))
    field = fields.make(seed=0, shape=SHAPE, density=300, magnitudes=(17.5, 20.0))
    template = coadd(inputs, Wcs.tangent(150, -30, SHAPE), SHAPE, CONFIG)
    full = template.n_inputs == 4
    pulls = []
    for x, y, flux in zip(field.x, field.y, field.flux, strict=True):
        others = np.sort(np.hypot(field.x - x, field.y - y))[1]
        if others < 25 or not (12 < x < SHAPE[1] - 13 and 12 < y < SHAPE[0] - 13) or not full[round(y), round(x)]:
            continue
        found, fx, fy = fitted(template.image, template.psf, x, y)
        assert found == pytest.approx(flux, rel=0.008)
        assert np.hypot(fx - x, fy - y) * 0.2 < 0.005
        pulls.append(found / flux - 1)
    assert len(pulls) >= 3
    assert abs(np.mean(pulls)) < 0.003


def cosmic_ray(c: Calibrated) -> Calibrated:
    """A visit with a cosmic ray and a satellite trail across it."""
    image = c.image.copy()
    sigma = float(np.sqrt(np.median(c.variance)))
    for k in range(12):
        image[100 + k // 2, 90 + k] += 60 * sigma
    y, x = np.mgrid[:c.shape[0], :c.shape[1]]
    across = (y - 0.3 * x - 40) / np.hypot(1, 0.3)
    image += (6 * sigma * np.exp(-0.5 * (across / 1.7) ** 2)).astype(np.float32)
    return replace(c, image=image)


def worst(template: Template, clean: Template) -> float:
    """Largest matched-filter S/N of the difference of two templates."""
    difference = template.image.astype(float) - clean.image
    psf = template.psf.central
    kernel = psf[::-1, ::-1]
    from scipy.signal import fftconvolve
    noise = np.sqrt(np.median(template.variance) * (psf**2).sum() * template.noise_acf.sum())
    return float(np.abs(fftconvolve(difference, kernel, mode="same")[8:-8, 8:-8]).max() / noise)


def test_what_one_visit_alone_shows_leaves_nothing_above_five_sigma() -> None:
    inputs = visits(5)
    dirty = [*inputs[:2], cosmic_ray(inputs[2]), *inputs[3:]]
    grid = Wcs.tangent(150, -30, SHAPE, rotation=5.0)
    clean = coadd(inputs, grid, SHAPE, CONFIG)
    assert worst(coadd(dirty, grid, SHAPE, CONFIG), clean) < 5
    assert worst(coadd(dirty, grid, SHAPE, TemplateConfig(reject_artifacts=False)), clean) > 25   # switched off


def test_stars_are_not_clipped_when_the_seeing_changes() -> None:
    inputs = visits(5)
    grid = Wcs.tangent(150, -30, SHAPE, rotation=5.0)
    kept = coadd(inputs, grid, SHAPE, CONFIG)
    everything = coadd(inputs, grid, SHAPE, TemplateConfig(reject_artifacts=False))
    lost = everything.n_inputs - kept.n_inputs
    assert (lost > 0).mean() < 0.002


def test_saturated_cores_and_defects_are_marked_not_averaged() -> None:
    inputs = visits(3)
    spoiled = []
    for c in inputs:
        mask, image = c.mask.copy(), c.image.copy()
        x, y = c.wcs.pixels(150.0, -30.0)
        mask[round(float(y)) - 2:round(float(y)) + 3, round(float(x)) - 2:round(float(x)) + 3] |= planes.SAT
        image[:, 77] = 1e6
        mask[:, 77] |= planes.BAD
        spoiled.append(replace(c, mask=mask, image=image))
    template = coadd(spoiled, Wcs.tangent(150, -30, SHAPE), SHAPE, CONFIG)
    centre = template.mask[SHAPE[0] // 2, SHAPE[1] // 2]
    assert centre & planes.SAT
    assert not centre & planes.NO_DATA
    assert template.image.max() < 5e5


def test_noisy_bins_are_flagged() -> None:
    inputs = blank_visits(3, [1.0] * 3)
    wide = (320, 360)
    template = coadd(inputs, Wcs.tangent(150, -30, wide), wide, CONFIG)
    covered = (template.mask & planes.NO_DATA) == 0
    assert 0.3 < covered.mean() < 0.9
    noisy = [replace(c, variance=np.where(np.mgrid[:SHAPE[0], :SHAPE[1]][0] > 150, 9, 1).astype(np.float32))
             for c in inputs[:1]]
    marked = coadd(noisy, noisy[0].wcs, SHAPE, CONFIG).mask & planes.HIGH_VARIANCE
    assert (marked[192:] > 0).all()
    assert not marked[:128].any()


def test_strips_do_not_show() -> None:
    inputs = visits(3)
    grid = Wcs.tangent(150, -30, SHAPE)
    whole = coadd(inputs, grid, SHAPE, TemplateConfig(strip_rows=1000))
    strips = coadd(inputs, grid, SHAPE, TemplateConfig(strip_rows=10))
    np.testing.assert_allclose(strips.image, whole.image, atol=1e-3)
    np.testing.assert_array_equal(strips.n_inputs, whole.n_inputs)


def test_visits_elsewhere_are_no_work_and_bands_do_not_mix() -> None:
    inputs = blank_visits(1, [1.0])
    with pytest.raises(NoWorkFound, match="none of 1 input"):
        coadd(inputs, Wcs.tangent(20.0, 10.0, SHAPE), SHAPE, CONFIG)
    with pytest.raises(NoWorkFound, match="no input"):
        coadd([], Wcs.tangent(20.0, 10.0, SHAPE), SHAPE, CONFIG)
    other = replace(inputs[0], visit=replace(inputs[0].visit, band="g"))
    with pytest.raises(ValueError, match="one band, got g, r"):
        coadd([inputs[0], other], Wcs.tangent(150, -30, SHAPE), SHAPE, CONFIG)


def test_turning_a_psf_by_its_own_symmetry_keeps_it() -> None:
    stamp = fields.psf_stamp(41, 3.6, 3.0, 0.2, 0.0)
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    np.testing.assert_allclose(rotated(stamp, quarter, 41), fields.psf_stamp(41, 3.6, 3.0, 0.2, 90.0), atol=1e-9)
    c, s = np.cos(0.5), np.sin(0.5)
    turned = rotated(stamp, np.array([[c, -s], [s, c]]), 41)
    expected = fields.psf_stamp(41, 3.6, 3.0, 0.2, -np.degrees(0.5))
    assert np.abs(turned - expected).max() < 1.5e-3 * stamp.max()


def blinking(factors: Sequence[float]) -> list[Calibrated]:
    """Blank visits, exactly aligned, of one star whose flux changes by these factors."""
    out = []
    for i, factor in enumerate(factors):
        wcs = Wcs.tangent(150.0, -30.0, SHAPE)
        base = fields.known(fields.make(seed=i, shape=SHAPE, wcs=wcs, density=0.0, visit=i))
        noise = np.random.default_rng([i, 3]).normal(0, 20.0, SHAPE)
        stamp = base.psf.central
        half = stamp.shape[0] // 2
        noise[110 - half:111 + half, 120 - half:121 + half] += 40_000.0 * factor * stamp
        out.append(replace(base, image=noise.astype(np.float32), variance=np.full(SHAPE, 400.0, np.float32)))
    return out


def test_a_star_that_varies_keeps_the_mean_of_its_visits() -> None:
    factors = [1.0, 1.3, 0.75, 1.35, 0.7, 0.95]
    wcs = Wcs.tangent(150.0, -30.0, SHAPE)
    whole = coadd(blinking(factors), wcs, SHAPE, CONFIG)
    clipped = coadd(blinking(factors), wcs, SHAPE, TemplateConfig(variability=0.0))
    core = np.s_[108:113, 118:123]
    assert whole.n_inputs[core].min() == 6
    assert fitted(whole.image, whole.psf, 120.0, 110.0)[0] == pytest.approx(40_000 * np.mean(factors), rel=0.01)
    assert clipped.n_inputs[core].min() < 6      # the control: the visits that differ most are left out
