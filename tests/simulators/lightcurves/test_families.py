import numpy as np
import pytest

from schemas.exposure import AB_ZEROPOINT_NJY, BANDS, magnitudes
from simulators import cosmology
from simulators.lightcurves import eruptive, lensing, nuclei, periodic, sn_ia, thermal
from simulators.passbands import WAVELENGTHS_NM, band_extinction, dimming, planck, weights
from simulators.populations import EXPLOSIVE


def type_ia(z: float, magnitude: float = -19.3) -> np.ndarray:
    """A typical SN_IA row with its maximum at MJD 0."""
    row = np.zeros(1, sn_ia.SN_IA)
    row["z"], row["stretch"], row["dim"] = z, 1.0, 1.0
    row["flux"] = 10 ** (-0.4 * (magnitude + cosmology.distance_modulus(np.array([z])) - AB_ZEROPOINT_NJY))
    return row


def test_type_ia_peaks_where_sncosmo_and_these_bands_put_them() -> None:
    # r = 21.50 at z = 0.3 and 22.55 at z = 0.5 were measured with sncosmo 2.13.1, hsiao-subsampled, M_B = -19.3
    for z, r in ((0.3, 21.50), (0.5, 22.55)):
        days = np.linspace(-10, 20, 61)
        assert min(magnitudes(sn_ia.sn_ia_flux(type_ia(z), 2, day))[0] for day in days) == pytest.approx(r, abs=0.02)


@pytest.mark.parametrize("z", [0.05, 0.3, 0.7])
def test_type_ia_fluxes_are_those_of_sncosmo(z: float) -> None:
    sncosmo = pytest.importorskip("sncosmo", reason="sncosmo, the oracle of SN Ia fluxes, is not installed")
    source = sncosmo.get_source("hsiao-subsampled")
    source.set_peakmag(-19.3, "bessellb", "ab")
    own = type_ia(z)
    distance = 10 ** (-0.4 * float(cosmology.distance_modulus(np.array([z]))[0]))
    for k, band in enumerate(BANDS):
        known = weights()[k] > 0
        at = sncosmo.Bandpass(10 * WAVELENGTHS_NM[known], (weights()[k] * WAVELENGTHS_NM)[known], name=f"our {band}")
        for phase in (-14.3, -10.0, 0.6, 12.0, 40.4, 62.6):
            model = sncosmo.Model(source)
            model.set(z=z, t0=0.0)
            expected = model.bandflux(at, phase * (1 + z), zp=AB_ZEROPOINT_NJY, zpsys="ab") * distance
            found = sn_ia.sn_ia_flux(own, k, phase * (1 + z))[0]
            if expected > 1e-3 * own["flux"][0]:
                assert -2.5 * np.log10(found / expected) == pytest.approx(0.0, abs=0.05), (band, phase)


def test_a_black_body_is_redshifted_as_the_formula_says() -> None:
    # at redshift z a black body of T looks like one of T / (1 + z)
    table = thermal.band_table(1e-6)
    z, t = np.array([0.5]), np.array([12_000.0])
    seen = np.array([table.at(b, np.log10(t), z)[0] for b in range(6)])
    cooler = weights() @ planck(t / 1.5, WAVELENGTHS_NM)
    assert seen / seen[2] == pytest.approx(cooler / cooler[2], rel=0.01)


def test_an_explosion_reaches_its_magnitude_in_its_rest_frame_band() -> None:
    shape = EXPLOSIVE["sn_ib"].shape
    assert shape is not None
    row = np.zeros(1, thermal.THERMAL)
    for name in ("rise", "plateau", "fall", "hot", "cool", "cooling"):
        row[name] = getattr(shape, name)
    row["flux"], row["dim"], row["z"] = 1000.0, 1.0, 1e-6
    row["top"] = thermal.tops(row["rise"], row["plateau"], row["fall"], shape)
    flux = np.array([thermal.thermal_flux(row, 2, t, shape)[0] for t in np.linspace(-40, 200, 2000)])
    assert flux.max() == pytest.approx(1000.0, rel=0.01)
    assert thermal.thermal_flux(row, 2, -41.0, shape)[0] == 0.0
    assert flux[-1] < 0.05 * flux.max()


def test_tidal_disruptions_fall_as_time_to_the_minus_five_thirds() -> None:
    shape = EXPLOSIVE["tde"].shape
    assert shape is not None
    rise, fall = np.array([8.0]), np.array([45.0])
    late = [thermal.brightness(np.array([t]), rise, np.zeros(1), fall, shape)[0] for t in (4000.0, 8000.0)]
    assert np.log2(late[0] / late[1]) == pytest.approx(5 / 3, abs=0.03)


def test_microlensing_magnifies_as_paczynski_says() -> None:
    assert lensing.magnification(np.array([1.0]))[0] == pytest.approx(3 / np.sqrt(5))
    row = np.zeros(1, lensing.LENSED)
    row["flux"], row["lensed"], row["peak"], row["einstein"], row["impact"] = 100.0, 1.0, 50.0, 20.0, 0.1
    u2 = 0.1**2
    peak = (u2 + 2) / np.sqrt(u2 * (u2 + 4))
    assert lensing.lensed_flux(row, 1, 50.0)[0] == pytest.approx(100.0 * peak)
    assert lensing.lensed_flux(row, 1, 30.0) == pytest.approx(lensing.lensed_flux(row, 4, 70.0))
    row["lensed"] = 0.25                                      # blended: a quarter of the light is magnified
    assert lensing.lensed_flux(row, 1, 50.0)[0] == pytest.approx(75.0 + 25.0 * peak)


def test_a_flare_has_davenports_shape() -> None:
    assert eruptive.flare_profile(np.array([-1.0001, 0.0, -0.5])) == pytest.approx([0.0, 1.0, 0.19], abs=0.02)
    t = np.linspace(-1, 3, 4001)
    above = t[eruptive.flare_profile(t) > 0.5]
    assert above[-1] - above[0] == pytest.approx(1.0, abs=0.15)      # time is in units of the width at half maximum


def test_eruptions_come_once_per_recurrence_and_depend_on_time_alone() -> None:
    rows = np.zeros(40, eruptive.ERUPTING)
    rows["flux"], rows["burst"], rows["recurrence"], rows["duration"] = 1.0, 30.0, 50.0, 4.0
    rows["phase"] = np.linspace(0, 1, 40, endpoint=False)
    times = 60_000.0 + np.arange(0, 1000, 0.5)
    flux = np.array([eruptive.dwarf_nova_flux(rows, 2, t) for t in times])
    starts = np.sum((flux[1:] > 10) & (flux[:-1] <= 10), axis=0)
    assert abs(starts.mean() - 20) < 1
    assert np.array_equal(flux[100], eruptive.dwarf_nova_flux(rows, 2, times[100]))
    assert not np.allclose(flux[:, 0], flux[:, 1])


def test_pulsating_stars_keep_period_amplitude_and_ascent() -> None:
    row = np.zeros(1, periodic.PULSATING)
    row["flux"], row["amplitude"], row["period"], row["ascent"] = 1000.0, periodic.RR_AMPLITUDE, 0.6, 0.15
    phases = np.arange(0, 1, 0.001)
    g = np.array([magnitudes(periodic.pulsating_flux(row, 1, 0.6 * p))[0] for p in phases])
    assert np.ptp(g) == pytest.approx(1.0, abs=0.01)
    assert phases[g.argmin()] == pytest.approx(0.15, abs=0.01)      # from faintest, at 0, to brightest
    assert periodic.pulsating_flux(row, 3, 100.0) == pytest.approx(periodic.pulsating_flux(row, 3, 100.6))


def test_eclipsing_stars_lose_their_depths_twice_in_a_period() -> None:
    row = np.zeros(1, periodic.ECLIPSING)
    row["flux"], row["first"], row["second"], row["width"], row["period"] = 100.0, 0.4, 0.1, 0.05, 3.0
    flux = [periodic.eclipsing_flux(row, 2, day)[0] for day in (0.0, 0.75, 1.5, 3.0)]
    assert flux == pytest.approx([60.0, 100.0, 90.0, 60.0], rel=1e-3)


def test_nuclei_have_the_structure_function_of_a_damped_random_walk() -> None:
    rng = np.random.default_rng(1)
    rows = np.zeros(3000, nuclei.NUCLEUS)
    rows["flux"], rows["sigma"] = 1.0, 0.2
    rows["omega"] = rng.standard_cauchy((3000, nuclei.MODES)) / 100.0
    rows["phase"] = rng.uniform(0, 2 * np.pi, (3000, nuclei.MODES))
    first = magnitudes(nuclei.nucleus_flux(rows, 2, 60_000.0))
    for gap in (10.0, 100.0):
        change = np.std(magnitudes(nuclei.nucleus_flux(rows, 2, 60_000.0 + gap)) - first)
        expected = 0.2 * np.sqrt(2 * -np.expm1(-gap / 100.0))
        assert abs(change - expected) < 4 * expected / np.sqrt(2 * 3000)


def test_dust_is_that_of_the_published_coefficients() -> None:
    # A(b) / E(B-V) of rubin_sim's and LightCurveLynx's law for LSST: about 4.8, 3.6, 2.7, 2.06, 1.58, 1.31
    assert 3.1 * band_extinction() == pytest.approx([4.81, 3.64, 2.70, 2.06, 1.58, 1.31], abs=0.06)
    assert -2.5 * np.log10(dimming(np.array([1.0])))[0] == pytest.approx(band_extinction())
    assert np.all(dimming(np.array([1.0]), 0.5) < dimming(np.array([1.0]), 0.0))     # bluer at rest, so more


def test_distances_and_volumes_are_those_of_astropy() -> None:
    astropy_cosmology = pytest.importorskip("astropy.cosmology")
    known, z = astropy_cosmology.FlatLambdaCDM(H0=70, Om0=0.3), np.array([0.005, 0.1, 0.7, 2.0, 5.0])
    assert cosmology.distance_modulus(z) == pytest.approx(known.distmod(z).value, abs=1e-4)
    assert cosmology.volume_mpc3_sr(z) == pytest.approx(known.differential_comoving_volume(z).value, rel=1e-4)
