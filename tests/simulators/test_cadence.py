from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from simulators.cadence import DAY_S, history, visit_id, visits
from simulators.config import CadenceConfig, FieldConfig, SimulationConfig


def test_the_default_night_is_twelve_visits_in_three_bands_in_pairs_33_minutes_apart() -> None:
    night = visits(SimulationConfig(), 1)
    assert Counter(v.band for v in night) == {"g": 4, "r": 4, "i": 4}
    assert all(a.mjd_tai < b.mjd_tai for a, b in pairwise(night))
    for block in range(3):
        four = night[4 * block:4 * block + 4]
        for k in range(2):
            gap_min = (four[k + 2].mjd_tai - four[k].mjd_tai) * 1440
            assert 31.5 < gap_min < 35.5


def test_visits_start_38_8_seconds_apart_as_in_the_baseline() -> None:
    config = SimulationConfig(cadence=CadenceConfig(blocks=("rr",), pairs=51))
    times = np.array([v.mjd_tai for v in visits(config, 5)]) * DAY_S
    gaps = np.diff(times)[:50]
    assert abs(np.median(gaps) - 38.8) < 0.8    # v2.0 baseline: 38.6 / 38.8 / 39.6 at 25, 50, 75 %
    assert np.all((gaps > 36) & (gaps < 45))


def test_a_band_change_takes_two_minutes() -> None:
    night = visits(SimulationConfig(cadence=CadenceConfig(blocks=("rr", "ii"), pairs=1)), 2)
    assert (night[2].mjd_tai - night[1].mjd_tai) * DAY_S == pytest.approx(30 + 4 + 120, abs=0.1)


def test_history_has_the_asked_number_per_band_a_year_before() -> None:
    config = SimulationConfig()
    earlier = history(config, 1)
    assert Counter(v.band for v in earlier) == {"g": 6, "r": 6, "i": 6}
    age = config.cadence.night_mjd - np.array([v.mjd_tai for v in earlier])
    assert age.min() > 325
    assert age.max() < 395
    assert len({v.visit for v in earlier + visits(config, 1)}) == 30


def test_dithers_stay_within_their_radius_and_turns_are_near_quarters() -> None:
    config = SimulationConfig(cadence=CadenceConfig(pairs=20), field=FieldConfig(ra=0.001, dec=-12.0))
    for v in visits(config, 9):
        east = ((v.ra - 0.001 + 180) % 360 - 180) * np.cos(np.radians(v.dec)) * 3600
        assert np.hypot(east, (v.dec + 12) * 3600) < 15.1
        assert abs((v.rotation + 45) % 90 - 45) < 25
        assert 0 <= v.ra < 360


def test_a_visit_id_is_the_evening_date_and_a_sequence_number() -> None:
    assert visit_id(61639.16, 7) == 2027082100007      # 2027-08-22 03:50 UTC belongs to the night of the 21st


def test_the_night_is_centred_on_the_transit() -> None:
    night = visits(SimulationConfig(), 1)
    airmass = [v.airmass for v in night]
    assert min(airmass) == pytest.approx(1 / np.cos(np.radians(30.2444 - 12)), abs=0.01)
    assert abs(airmass[0] - airmass[-1]) < 0.02


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(TypeError, match="Unexpected keyword argument"):
        CadenceConfig(pears=2)  # type: ignore[call-arg]  # the misspelling is the test
