"""From raw to what it was: every effect alone and all together, and what happens where a calibration is left out.

The bars: in bins of level up to 0.8 of the full well the mean pull is within 0.05 and its rms within 0.98 to 1.02;
brighter-fatter and deferred charge are judged by stars. A pixel is compared with the light that fell, electron for
electron; the oracle is the scene, and no code of the simulators' is used by the removal.
"""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.calibrate.signature import remove_signature, unbent
from pipeline.errors import InputError
from pipeline.pixel_config import PixelConfig, SignatureConfig
from pipeline.steps import Step, run
from pipeline.subtraction import Static, without_signature
from schemas import mask as planes
from schemas.exposure import Visit
from schemas.measures import REFERENCE, empty
from schemas.wcs import Wcs
from simulators import focalplane, raw
from tests.pipeline.raws import EFFECTS, Passed, passed, patches, settings, without

SENSORS = ("R22_S11", "R01_S11")                 # e2v, ITL
PIXELS = tuple(name for name in EFFECTS if name != "brighter_fatter")
TOGETHER = [*((name,) for name in PIXELS if name != "read_noise"), PIXELS]


def through(*effects: str, select: str, side: int, sky: float | None = None, left_out: str = "",
            frames: int = 0) -> Passed:
    """Patches of many levels through a camera with these effects and read noise."""
    band = "y" if "fringe" in effects else "r"
    level = (8000.0 if band == "y" else 900.0) if sky is None else sky
    config = settings(("read_noise", *effects), select=select, shape=(side, side), frames=frames)
    known = without(config, left_out) if left_out else None
    return passed(config, patches(config, level), level, band=band, known=known)


def within_the_bars(found: Passed) -> bool:
    """Whether every bin meets both bars, four sigmas of its own sampling allowed."""
    bins = found.bins()
    error = 4.0 / np.sqrt(bins[:, 3])
    return bool(np.all(np.abs(bins[:, 1]) < 0.05 + error) and np.all(bins[:, 2] > 0.98 - error / np.sqrt(2))
                and np.all(bins[:, 2] < 1.02 + error / np.sqrt(2)))


@pytest.mark.parametrize("select", SENSORS)
@pytest.mark.parametrize("effects", TOGETHER, ids=lambda e: e[0] if len(e) == 1 else "all")
def test_the_image_is_the_light_that_fell(effects: tuple[str, ...], select: str) -> None:
    assert within_the_bars(through(*effects, select=select, side=384))


@pytest.mark.parametrize(("effect", "sky"), [("bias", 60.0), ("dark", 20.0), ("flat", 900.0), ("edge", 900.0),
                                             ("fringe", 8000.0), ("linearity", 900.0), ("crosstalk", 900.0)])
def test_a_calibration_left_out_fails_the_bars(effect: str, sky: float) -> None:
    """Of e2v, but crosstalk of ITL; a corner's glow and dark current show where the sky is faint."""
    select = SENSORS[effect == "crosstalk"]
    assert within_the_bars(through(effect, select=select, side=384, sky=sky))
    assert not within_the_bars(through(effect, select=select, side=384, sky=sky, left_out=effect))


def test_deferred_charge_is_put_back_where_it_came_from() -> None:
    """Behind bright columns of ITL: the pixel that is read after them."""
    config = settings(("read_noise", "cti"), select="R01_S11", shape=(256, 512))
    scene = np.full((256, 512), 900.0)
    scene[:, 8::16] = 60_000.0
    after = np.zeros(scene.shape, bool)
    after[:, 7::16] = True                       # lower and upper amplifiers of ITL are read from the high-x side on
    right, wrong = (passed(config, scene, 900.0, known=known) for known in (None, without(config, "cti")))
    error = 1 / np.sqrt(np.count_nonzero(after))
    assert abs(right.pulls[after].mean()) < 0.05 + 4 * error
    assert wrong.pulls[after].mean() > 0.05 + 4 * error


def test_the_variance_is_that_of_the_pixels() -> None:
    found = through(*PIXELS, select="R22_S11", side=384)
    ratio = found.removed.variance * found.calibrations.gain.mean() ** 2 / found.expected_noise**2
    assert ratio[found.good].mean() == pytest.approx(1.0, abs=0.02)
    assert found.removed.exposure.gain == pytest.approx(found.calibrations.gain.mean(), rel=0.01)


def with_saturated_stars(select: str, side: int, seed: int = 1) -> Passed:
    config = settings(PIXELS, select=select, shape=(side, side))
    rng, scene = np.random.default_rng(seed), np.full((side, side), 900.0)
    y, x = np.mgrid[0:side, 0:side]
    for peak in np.geomspace(1.5e5, 2e7, max(4, side // 64)):
        at_x, at_y = rng.uniform(0, side, 2)
        scene += peak * (1 + ((x - at_x) ** 2 + (y - at_y) ** 2) / 3.9**2) ** -3.0
    return passed(config, scene, 900.0)


def completeness(found: Passed, plane: int) -> tuple[float, int]:
    true = (found.drawn.mask & plane) > 0
    return float(((found.removed.exposure.mask & plane) > 0)[true].mean()), int(true.sum())


@pytest.mark.parametrize("select", SENSORS)
def test_saturated_cores_bleeds_and_defects_are_masked(select: str) -> None:
    found = with_saturated_stars(select, 384)
    for plane in (planes.SAT, planes.BAD):
        share, n = completeness(found, plane)
        assert n > 100
        assert share >= 0.99
    assert ((found.removed.exposure.mask & planes.SAT) > 0).mean() < 3 * ((found.drawn.mask & planes.SAT) > 0).mean()


def test_defects_missing_from_the_list_are_not_masked() -> None:
    config = settings(("read_noise", "defects"), shape=(384, 384))
    found = passed(config, np.full((384, 384), 900.0), 900.0, known=without(config, "defects"))
    assert completeness(found, planes.BAD)[0] < 0.01


# --- stars -----------------------------------------------------------------------------------------------------------

STEP, HALF = 32, 15


def star_field(select: str, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(scene, x, y, peak): Moffat stars of 0.8" on a sky of 900 electrons, up to 0.8 of the full well."""
    rng = np.random.default_rng(5)
    x, y = (v.ravel().astype(float) for v in np.meshgrid(*[np.arange(STEP, side - STEP + 1, STEP)] * 2))
    x, y = x + rng.uniform(-0.5, 0.5, x.size), y + rng.uniform(-0.5, 0.5, y.size)
    full = focalplane.sensor(focalplane.detector_id(select)).full_well.min()
    peak = np.resize(np.geomspace(2000.0, 0.8 * full - 900.0, 6), x.size)
    scene, (v, u) = np.full((side, side), 900.0), np.mgrid[-HALF:HALF + 1, -HALF:HALF + 1]
    for at_x, at_y, high in zip(x, y, peak, strict=True):
        i, j = round(at_y), round(at_x)
        r2 = (u + j - at_x) ** 2 + (v + i - at_y) ** 2
        scene[i - HALF:i + HALF + 1, j - HALF:j + HALF + 1] += high * (1 + r2 / 3.92**2) ** -3.0
    return scene, x, y, peak


def shapes(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, 3) size [pixel], flux within 12 px, and flux in a Gaussian that fits the faint ones, at known positions."""
    v, u = np.mgrid[-HALF:HALF + 1, -HALF:HALF + 1]
    out = []
    for at_x, at_y in zip(x, y, strict=True):
        i, j = round(at_y), round(at_x)
        stamp, r2 = image[i - HALF:i + HALF + 1, j - HALF:j + HALF + 1], (u + j - at_x) ** 2 + (v + i - at_y) ** 2
        weight = np.exp(-r2 / 8.0)
        moment = (weight * stamp * r2).sum() / (weight * stamp).sum() / 2
        out.append((np.sqrt(1 / (1 / moment - 1 / 4.0)), stamp[r2 < 144].sum(), (weight * stamp).sum()))
    return np.array(out)


def changes(effect: str, select: str, signature: SignatureConfig, side: int = 256) -> np.ndarray:
    """(6, 4) peak, relative size, aperture and PSF flux [mmag] against the same stars, same photons, no effect."""
    scene, x, y, peak = star_field(select, side)
    found = [passed(settings(effects, select=select, shape=scene.shape), scene, 900.0, signature=signature)
             for effects in (("read_noise",), ("read_noise", effect))]
    plain, bent = (shapes(one.electrons - 900.0, x, y) for one in found)
    rows = []
    for high in np.unique(peak):
        ratio = (bent / plain)[peak == high].mean(axis=0)
        rows.append((high, ratio[0] - 1, *(-2500 * np.log10(ratio[1:]))))
    return np.array(rows)


@pytest.mark.parametrize("select", SENSORS)
def test_stars_keep_size_and_flux_with_brighter_fatter_corrected(select: str) -> None:
    found = changes("brighter_fatter", select, SignatureConfig(brighter_fatter=True))
    assert np.abs(found[:, 1]).max() < 0.01
    assert np.abs(found[:, 2:]).max() < 5.0


def test_bright_stars_are_larger_with_brighter_fatter_left_as_production_leaves_it() -> None:
    found = changes("brighter_fatter", "R22_S11", SignatureConfig())
    assert 0.01 < found[-1, 1] < 0.03
    assert np.all(np.diff(found[:, 1]) > 0)
    assert np.abs(found[:, 2]).max() < 5.0       # no electron is lost within 12 pixels
    assert found[-1, 3] > 5.0                    # but a PSF of faint stars misses some


@pytest.mark.parametrize("signature", [SignatureConfig(), SignatureConfig(deferred_charge=False)])
def test_stars_keep_size_and_flux_whatever_is_done_about_deferred_charge(signature: SignatureConfig) -> None:
    """ITL: its traps and transfers are so good that even left alone they pass."""
    found = changes("cti", "R01_S11", signature)
    assert np.abs(found[:, 1]).max() < 0.01
    assert np.abs(found[:, 2:]).max() < 5.0


def test_the_correction_undoes_a_potential_flow_exactly() -> None:
    """An image bent by the kernel itself: O = F + 1/2 div(F grad K F), to the iteration's end."""
    kernel = raw.potential(raw.area_matrix(focalplane.sensor(94)))
    y, x = np.mgrid[0:64, 0:64]
    true = (500.0 + 60_000.0 * np.exp(-((x - 31.3) ** 2 + (y - 30.8) ** 2) / 8.0)).astype(np.float32)
    there = unbent(true, -kernel, 1)             # one step of the wrong sign is the forward model
    back = unbent(there, kernel, 8)
    assert np.abs(there - true).max() > 300.0
    assert np.abs(back - true).max() < 1.0


# --- what is refused -------------------------------------------------------------------------------------------------

def test_calibrations_of_another_band_or_detector_are_refused() -> None:
    config = settings((), shape=(64, 64))
    visit, wcs = Visit(5, "r", 0.0, 0.0, 0.0, 60000.0, 30.0), Wcs.tangent(0, 0, (64, 64))
    drawn = raw.record(np.full((64, 64), 10.0), 10.0, config, visit, 94, 1, wcs, None, 30.0)   # type: ignore[arg-type]
    exposure = raw.exposed(drawn, config, visit, 94, wcs)
    right = raw.calibrations(config, 94, "r")
    for wrong in (replace(right, band="g"), replace(right, detector=3)):
        with pytest.raises(InputError, match=r"visit 5: calibrations must be of \(detector, band, readout\) \(94, 'r'"):
            remove_signature(exposure, wrong, SignatureConfig())


def test_a_raw_exposure_announces_its_step_and_others_pass_untouched() -> None:
    config = settings(("read_noise",), shape=(64, 64))
    found = passed(config, np.full((64, 64), 500.0), 500.0)
    visit = found.removed.exposure.visit
    exposure = raw.exposed(found.drawn, config, visit, 94, found.removed.exposure.wcs)
    steps: list[Step] = []
    static = Static(None, empty(REFERENCE), calibrations=found.calibrations)
    plain = run(without_signature(exposure, static, PixelConfig()), steps.append)
    assert [(step.name, step.size) for step in steps] == [("isr", exposure.amplifiers.size)]
    assert np.array_equal(plain.image, found.removed.exposure.image)
    assert run(without_signature(plain, Static(None, empty(REFERENCE)), PixelConfig()), steps.append) is plain
    assert len(steps) == 1
    with pytest.raises(InputError, match="a raw exposure of detector 94 needs calibrations, got none"):
        run(without_signature(exposure, Static(None, empty(REFERENCE)), PixelConfig()))


# --- acceptance ------------------------------------------------------------------------------------------------------

@pytest.mark.accept
@pytest.mark.parametrize("select", SENSORS)
@pytest.mark.parametrize("effects", TOGETHER, ids=lambda e: e[0] if len(e) == 1 else "all")
def test_the_bars_hold_without_allowance(effects: tuple[str, ...], select: str) -> None:
    bins = through(*effects, select=select, side=2048).bins()
    print(f"{select} {'+'.join(effects)}: bias {np.abs(bins[:, 1]).max():.4f}, rms {bins[:, 2].min():.4f} to "
          f"{bins[:, 2].max():.4f}, of {len(bins)} bins to {bins[-1, 0]:.0f} e, {bins[:, 3].min():.0f} pixels and more")
    assert np.abs(bins[:, 1]).max() < 0.05
    assert bins[:, 2].min() > 0.98
    assert bins[:, 2].max() < 1.02


@pytest.mark.accept
@pytest.mark.parametrize("select", SENSORS)
def test_calibrations_of_a_hundred_frames_meet_the_bars(select: str) -> None:
    bins = through(*PIXELS, select=select, side=2048, frames=100).bins()
    print(f"{select} 100 frames: bias {np.abs(bins[:, 1]).max():.4f}, rms {bins[:, 2].min():.4f} to "
          f"{bins[:, 2].max():.4f}")
    assert np.abs(bins[:, 1]).max() < 0.05
    assert bins[:, 2].max() < 1.02


@pytest.mark.accept
@pytest.mark.parametrize("select", SENSORS)
def test_saturation_and_defects_are_complete_over_a_large_image(select: str) -> None:
    found = with_saturated_stars(select, 2048)
    for name, plane in (("saturated", planes.SAT), ("defects", planes.BAD)):
        share, n = completeness(found, plane)
        print(f"{select} {name}: {share:.5f} of {n}")
        assert share >= 0.99


@pytest.mark.accept
@pytest.mark.parametrize("select", SENSORS)
def test_star_sizes_and_fluxes_against_magnitude(select: str) -> None:
    for name, effect, signature in (("brighter-fatter, as production", "brighter_fatter", SignatureConfig()),
                                    ("brighter-fatter corrected", "brighter_fatter",
                                     SignatureConfig(brighter_fatter=True)),
                                    ("deferred charge", "cti", SignatureConfig())):
        found = changes(effect, select, signature, side=1024)
        for peak, size, aperture, psf in found:
            print(f"{select} {name}: peak {peak:.0f} e, size {100 * size:+.3f} %, flux {aperture:+.2f} mmag in 12 px, "
                  f"{psf:+.2f} mmag under a PSF")
        if "production" not in name:
            assert np.abs(found[:, 1]).max() < 0.01
            assert np.abs(found[:, 2:]).max() < 5.0


