"""A survey's visits in a scenario: its conditions are taken over, its earlier visits are the past."""

from pathlib import Path

import pytest

from simulators.cadence import conditions_of, history, visits
from simulators.conditions import conditions
from simulators.config import CadenceConfig, FieldConfig, SchedulerConfig, SimulationConfig

from .test_opsim import NEW, OLD, database

FIELD = FieldConfig(ra=10.2, dec=-30.1)
NIGHT = {**NEW, "observationStartMJD": (61639.2, 61639.1, 61630.1), "band": ("r", "i", "r"),
         "filter": ("r_57", "i_39", "r_57"), "fieldRA": (10.0, 10.5, 10.1), "fieldDec": (-30.0, -30.2, -30.0)}


def scenario(path: Path, **changes: object) -> SimulationConfig:
    return SimulationConfig(field=FIELD, cadence=CadenceConfig(opsim=str(path), **changes))  # type: ignore[arg-type]  # settings


def test_the_nights_visits_are_those_that_cover_the_field_with_their_conditions(tmp_path: Path) -> None:
    config = scenario(database(tmp_path / "a.db", NIGHT))
    night = visits(config, 1)
    assert [v.band for v in night] == ["i", "r"]
    assert night[1].mjd_tai == pytest.approx(61639.2 + 17.0 / 86400, abs=1e-9)
    assert [v.rotation for v in night] == [20.0, 10.0]
    assert [v.airmass for v in night] == [1.2, 1.1]
    assert all(abs(v.ra - 10.2) < 0.01 and abs(v.dec + 30.1) < 0.01 for v in night)
    now = conditions_of(config, night[0], 1)
    assert (now.fwhm_eff, now.fwhm500, now.sky_mag, now.airmass) == (0.8, 0.55, 20.0, 1.2)
    assert now.extinction == pytest.approx(0.05)       # one eighth of clouds


def test_earlier_visits_are_the_past_and_a_band_without_one_is_drawn(tmp_path: Path) -> None:
    config = scenario(database(tmp_path / "a.db", NIGHT), history_per_band=3)
    past = history(config, 1)
    assert [v.band for v in past if v.mjd_tai > 61600] == ["r"]
    assert [v.band for v in past if v.mjd_tai < 61600] == ["i"] * 3
    drawn = next(v for v in past if v.band == "i")
    assert conditions_of(config, drawn, 1) == conditions(config, drawn, 1)


def test_an_old_database_gives_its_sky_by_its_depth_and_its_airmass_by_its_place(tmp_path: Path) -> None:
    columns = {**OLD, "observationStartMJD": NIGHT["observationStartMJD"]}
    config = scenario(database(tmp_path / "old.db", columns))
    visit = visits(config, 1)[1]
    now = conditions_of(config, visit, 1)
    assert visit.band == "r"
    assert 1.0 < now.airmass < 3.0
    from simulators.depth import depth

    assert float(depth("r", now.sky_mag, now.fwhm_eff, now.airmass)) == pytest.approx(24.1, abs=0.02)


def test_a_night_without_visits_names_the_nights_that_have_some(tmp_path: Path) -> None:
    config = scenario(database(tmp_path / "a.db", NIGHT), night_mjd=61700)
    with pytest.raises(ValueError, match=r"a\.db: no visit in the night 61700 .*ra 10\.2, dec -30\.1 within 1\.75 deg; "
                                         r"nearest nights that do: 61630, 61639"):
        visits(config, 1)


def test_our_scheduler_makes_the_night() -> None:
    plan = SchedulerConfig(clear=(1.0, 1.0), downtime=False)
    config = SimulationConfig(field=FieldConfig(ra=330.0, dec=-30.0),
                              cadence=CadenceConfig(mode="scheduler", survey_nights=3, night_mjd=61638, scheduler=plan,
                                                    cover_deg=4.0))
    night = visits(config, 2)
    assert len(night) >= 2
    assert all(abs(v.mjd_tai - 61638.2) < 0.3 for v in night)
    assert night == visits(config, 2)
    assert len({v.visit for v in night + history(config, 2)}) == len(night) + len(history(config, 2))


def test_drawn_nights_are_as_they_were() -> None:
    config = SimulationConfig()
    night = visits(config, 1)
    assert [conditions_of(config, v, 1) for v in night] == [conditions(config, v, 1) for v in night]


def test_a_database_and_the_scheduler_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="mode must stay pairs, got 'scheduler'"):
        CadenceConfig(opsim="a.db", mode="scheduler")
