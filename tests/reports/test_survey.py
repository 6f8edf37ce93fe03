import numpy as np
import pytest

from reports.intervals import weighted_fraction, weighted_purity, wilson
from reports.match import Matches
from reports.store import empty
from reports.survey import plot, survey


def test_equal_weights_of_independent_cases_are_wilsons_interval() -> None:
    found = np.arange(50) < 40
    estimate = weighted_fraction(np.full(50, 3.0), found, np.arange(50))
    assert (estimate.low, estimate.high) == pytest.approx([float(x) for x in wilson(40, 50)], abs=1e-6)
    assert estimate.value == 0.8


def test_an_object_seen_ten_times_is_one_case_where_its_visits_agree() -> None:
    found = np.repeat(np.arange(30) < 24, 10)
    estimate = weighted_fraction(np.ones(300), found, np.repeat(np.arange(30), 10))
    assert (estimate.low, estimate.high) == pytest.approx([float(x) for x in wilson(24, 30)], abs=1e-6)


def test_intervals_of_weighted_fractions_cover_the_truth() -> None:
    rng = np.random.default_rng(7)
    held = plain_held = 0
    for _ in range(400):
        z = rng.uniform(size=150)
        weight = z**2                                     # a sample flat in z of a sky that grows as z^2
        found = rng.uniform(size=150) < 1.0 - 0.6 * z
        estimate = weighted_fraction(weight, found, np.arange(150))
        truth = 1.0 - 0.6 * 0.75                          # mean of z over z^2 dz is 3/4
        held += estimate.low <= truth <= estimate.high
        low, high = wilson(found.sum(), 150)
        plain_held += bool(low <= truth <= high)
    assert abs(held / 400 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400)
    assert plain_held < 80                                # negative control: weights forgotten


def test_purity_weighs_the_real_and_counts_the_false() -> None:
    estimate = weighted_purity(np.full(200, 0.1), np.arange(200), 20)
    assert estimate.value == pytest.approx(0.5)
    assert estimate.low < 0.42
    assert estimate.high > 0.58
    pure = weighted_purity(np.ones(100), np.arange(100), 0)
    assert (pure.value, pure.high) == (1.0, 1.0)
    assert 0.93 < pure.low < 0.97
    assert np.isnan(weighted_purity(np.zeros(0), np.zeros(0), 0).value)


def matches_of(weight: np.ndarray, names: list[bytes]) -> Matches:
    """Truth of S/N 10 in one detector-visit, every second found, and one false detection."""
    n = len(weight)
    truth = empty("truth", n)
    truth["truthId"], truth["snr"], truth["weight"], truth["class"] = np.arange(n), 10.0, weight, names
    truth["kind"], truth["input_mask"] = b"transient", 0
    found = np.where(np.arange(n) % 2 == 0, np.arange(n) // 2, -1)
    k = int(np.sum(found >= 0))
    sources = np.zeros(k + 1, [("snr", "f4"), ("raw", "?"), ("alert", "?")])
    sources["snr"], sources["raw"], sources["alert"] = 10.0, True, True
    log = empty("exposure_log", 1)
    log["status"], log["nx"], log["ny"], log["usable_px"] = b"done", 1000, 1000, 0
    partner = np.concatenate([np.flatnonzero(found >= 0), [-1]])
    return Matches(truth, sources, log, found, partner, np.zeros(k + 1, "S24"), np.zeros(n, "S64"), "simulated")


def test_completeness_and_purity_are_weighted_by_class() -> None:
    weight = np.array([0.3, 0.1, 0.02, 0.02])
    table = survey(matches_of(weight, [b"sn_ia", b"sn_ia", b"tde", b"tde"]))
    rows = {row["class"]: row for row in table.classes}
    assert rows[b"sn_ia"]["alert_fraction"] == pytest.approx(0.75)
    assert rows[b"sn_ia"]["plain"] == 0.5
    assert rows[b"sn_ia"]["density"] == pytest.approx(0.4)
    assert rows[b"all"]["alert_fraction"] == pytest.approx(0.32 / 0.44)
    assert table.alerts.value == pytest.approx(0.32 / 1.32)
    assert plot(table).axes


def test_a_run_without_weights_has_no_survey() -> None:
    table = survey(matches_of(np.full(4, np.nan), [b""] * 4))
    assert len(table.classes) == 0
    assert np.isnan(table.alerts.value)
