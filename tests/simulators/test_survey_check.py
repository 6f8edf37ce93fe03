"""The bars of a survey: what lies within passes, what does not is found."""

import numpy as np
import pytest

from schemas.opsim import OPSIM
from simulators.config import SchedulerConfig
from simulators.kinematics import Kinematics
from simulators.scheduler import simulate
from simulators.survey_check import PUBLISHED, THROUGHPUT_STEP, Check, checks, lines, published_step, statistics


def regular(gap_s: float, nights: int = 4) -> np.ndarray:
    """Visits of 34 s in r, 3 degrees apart, with one gap between them."""
    rows = np.zeros(nights * 100, OPSIM)
    k = np.arange(len(rows))
    rows["observationStartMJD"] = 61250.1 + k // 100 + (k % 100) * (34.0 + gap_s) / 86400
    rows["visitTime"], rows["band"], rows["night"] = 34.0, "r", k // 100
    rows["fieldRA"], rows["fieldDec"] = 3.0 * (k % 100), 0.0
    rows["airmass"], rows["seeingFwhm500"], rows["seeingFwhmEff"], rows["fiveSigmaDepth"] = 1.17, 0.655, 0.96, 24.2
    return rows


def found(rows: np.ndarray, name: str, percent: int | None = 50) -> Check:
    return next(one for one in checks(rows) if (one.name, one.percent) == (name, percent))


def test_gaps_and_distances_are_measured_as_they_are() -> None:
    values = statistics(regular(4.84))
    assert values["slew gap [s]"] == pytest.approx(4.84, abs=1e-4)
    assert values["slew distance [deg]"] == pytest.approx(3.0)
    assert values["visits per night"].tolist() == [100.0] * 4
    assert len(values["pair gap [min]"]) == 0


def test_a_median_within_a_tenth_passes_and_beyond_fails() -> None:
    assert found(regular(4.84), "slew gap [s]").passed
    assert found(regular(5.3), "slew gap [s]").passed
    assert not found(regular(5.4), "slew gap [s]").passed
    assert not found(regular(9.68), "slew gap [s]").passed
    assert not found(regular(4.84), "visits per night").passed
    assert not found(regular(4.84), "share of r", None).passed


def test_pairs_are_pointings_seen_twice_in_a_night() -> None:
    rows = regular(4.84)
    rows["fieldRA"][50:100] = rows["fieldRA"][:50]
    assert statistics(rows)["pair gap [min]"] == pytest.approx(50 * 38.84 / 60, abs=0.01)


def test_the_baselines_throughputs_differ_from_todays_as_its_published_medians_say() -> None:
    for band, step in THROUGHPUT_STEP.items():
        assert step == pytest.approx(published_step(band), abs=0.1), band
    off = found(regular(4.84), "m5 r [mag]")
    assert off.ours == pytest.approx(24.2 + THROUGHPUT_STEP["r"], abs=1e-6)


def test_the_table_names_what_fails() -> None:
    text = "\n".join(lines(checks(regular(9.68))))
    assert "FAIL" in text
    assert "slew gap [s]" in text


def test_a_figure_that_one_years_weather_moves_is_told_from_one_that_is_wrong() -> None:
    name = "visits per night"
    assert Check(name, 5, 300.0, 268.0, 0.2, True).passed
    assert not Check(name, 5, 300.0, 268.0, 0.2, True).weather
    off = Check(name, 5, 450.0, 268.0, 0.2, True)
    assert off.weather
    assert not off.passed
    assert "year" in lines([off])[1]
    assert not Check(name, 5, 600.0, 268.0, 0.2, True).weather
    assert not Check(name, 5, 190.0, 268.0, 0.2, True).weather
    assert not Check(name, 50, 450.0, 752.0, 0.1, True).weather
    assert not Check("slew gap [s]", 5, 300.0, 4.4, 0.2, True).weather


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="no visits to compare"):
        checks(np.zeros(0, OPSIM))


@pytest.mark.accept
def test_years_are_the_published_baselines() -> None:
    """Each year by itself, but for what one year's weather moves; that is right over the years together."""
    years = [simulate(SchedulerConfig(), seed, 365) for seed in range(1, 9)]
    for year in years:
        wrong = [one for one in checks(year) if not (one.passed or one.weather)]
        assert not wrong, "\n".join(lines(wrong))
    nights = np.concatenate([statistics(year)["visits per night"] for year in years])
    low, published = np.percentile(nights, 5), PUBLISHED["visits per night"][0]
    assert low == pytest.approx(published, rel=0.2)


@pytest.mark.accept
def test_a_telescope_half_as_fast_is_found_out() -> None:
    year = simulate(SchedulerConfig(), 1, 365, kinematics=Kinematics().slower(2.0))
    wrong = {one.name for one in checks(year) if not one.passed}
    assert "slew gap [s]" in wrong
    assert "start to start [s]" in wrong
    assert np.median(statistics(year)["slew gap [s]"]) > 1.5 * PUBLISHED["slew gap [s]"][2]
