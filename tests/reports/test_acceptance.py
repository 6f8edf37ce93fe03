import math
from collections.abc import Callable, Sequence

import pytest

from reports import acceptance
from reports.acceptance import Figure, judge
from reports.intervals import Estimate
from reports.match import Matches, match
from reports.solarsystem import objects
from reports.store import Store
from tests.reports.maker import Knobs


@pytest.fixture(scope="module")
def figures(good: Store) -> dict[str, Figure]:
    return {figure.key: figure for figure in judge([good])}


def test_a_run_without_fault_passes_every_figure(figures: dict[str, Figure]) -> None:
    assert [f"{f.key} {f.verdict} {f.value}" for f in figures.values() if f.verdict not in ("pass", "quoted")] == []
    assert acceptance.accepted(list(figures.values()))


def test_the_figures_are_the_known_answers(figures: dict[str, Figure]) -> None:
    """Threshold 5 with unit noise: half complete at 5, Phi(1) = 0.84 at 6, all of it times the score's 0.97."""
    for key, answer, tolerance in (("s50_raw", 5.0, 4 * 0.042), ("raw_5.5_6.5", 0.835, 0.07), ("raw_8_10", 1.0, 0.01),
                                   ("alerts_flat_6_20", 0.97 * 0.992, 0.015), ("pull_std_hostless", 1.0, 0.05),
                                   ("position_pull_ra", 1.0, 0.04), ("trail_length_fisher", 1.0, 0.2),
                                   ("dipole_moved", 0.95, 0.03), ("cost", 1.05, 1e-3), ("wcs", 0.01, 1e-6)):
        assert figures[key].value == pytest.approx(answer, abs=tolerance), key
    assert figures["association"].value == 1.0
    assert figures["false_alerts"].value == pytest.approx(0.4, abs=4 * math.sqrt(0.4 / 12))


BROKEN: list[tuple[Knobs, Callable[[Matches], Sequence[Figure]], tuple[str, ...]]] = [
    (Knobs(threshold=6.0), acceptance.completeness_figures, ("s50_raw", "raw_5.5_6.5", "alerts_5.5_6.5")),
    (Knobs(lose=0.15), acceptance.completeness_figures, ("raw_8_10", "alerts_flat_6_20")),
    (Knobs(real_score=0.7), acceptance.completeness_figures, ("alerts_5.5_6.5", "alerts_flat_6_20")),
    (Knobs(false_alerts=5.0), acceptance.purity_figures, ("false_alerts",)),
    (Knobs(flux_bias=0.25), acceptance.pull_figures, ("pull_mean_hostless", "pull_mean_hosted")),
    (Knobs(claimed_flux_error=0.8), acceptance.pull_figures, ("pull_std_hostless", "pull_std_hosted")),
    (Knobs(claimed_flux_error=1.3), acceptance.pull_figures, ("pull_std_hostless", "pull_std_hosted")),
    (Knobs(offset_arcsec=0.1), acceptance.position_figures, ("position", "position_pull_ra")),
    (Knobs(position_error=1.5), acceptance.position_figures, ("position_pull_ra", "position_pull_dec")),
    (Knobs(position_error=0.6), acceptance.position_figures, ("position_pull_ra", "position_pull_dec")),
    (Knobs(wcs_arcsec=0.08), acceptance.stage_figures, ("wcs",)),
    (Knobs(zeropoint=0.05), acceptance.stage_figures, ("zeropoint",)),
    (Knobs(psf_size=0.05), acceptance.stage_figures, ("psf_size",)),
    (Knobs(lag1=0.04), acceptance.stage_figures, ("lag1",)),
    (Knobs(depth=-0.08), acceptance.stage_figures, ("depth_r", "depth_i")),
    (Knobs(snr_rms=1.09), acceptance.stage_figures, ("snr_rms",)),
    (Knobs(trail_error=2.0), acceptance.trail_figures, ("trail_length_fisher", "trail_angle_fisher")),
    (Knobs(trail_error=25.0), acceptance.trail_figures, ("trail_length", "trail_angle")),
    (Knobs(dipoles=0.6), acceptance.dipole_figures, ("dipole_moved",)),
    (Knobs(point_dipoles=0.04), acceptance.dipole_figures, ("dipole_points",)),
    (Knobs(unexplained=True, lose=0.1), acceptance.reason_figures, ("reasons",))]


@pytest.mark.parametrize(("knobs", "judged", "keys"), BROKEN, ids=lambda v: v[0] if isinstance(v, tuple) else "")
def test_each_bar_fails_on_what_it_is_there_for(broken: Callable[[Knobs], Store], knobs: Knobs,
                                                judged: Callable[[Matches], Sequence[Figure]],
                                                keys: tuple[str, ...]) -> None:
    found = {figure.key: figure for figure in judged(match(broken(knobs)))}
    assert {key: found[key].passes for key in keys} == dict.fromkeys(keys, False), found


def test_lost_asteroids_fail_their_figure_and_are_listed(broken: Callable[[Knobs], Store]) -> None:
    store = broken(Knobs(ss_lost=0.05))
    figure, = acceptance.solar_system_figures(match(store), objects(store))
    assert not figure.passes
    assert "no SSObject associated" in figure.detail or "DIAObject lies within" in figure.detail


def test_split_objects_lower_the_association_accuracy(broken: Callable[[Knobs], Store]) -> None:
    figure, = acceptance.association_figures(match(broken(Knobs(split=0.1))))
    assert figure.value == pytest.approx(1 - 0.1 * 0.85, abs=0.03)     # asteroids are not split
    assert figure.verdict == "quoted"


def test_a_wrong_cost_table_fails(broken: Callable[[Knobs], Store]) -> None:
    store = broken(Knobs(cost=1.3))
    figure, = acceptance.cost_figures(store.table("step"))
    assert figure.value == pytest.approx(1.3, rel=1e-6)
    assert not figure.passes


def test_too_few_cases_are_no_pass() -> None:
    figure = acceptance.at_least("k", "name", Estimate(1.0, 0.9, 1.0, 30), 0.9, n_min=200)
    assert (figure.passes, figure.verdict) == (True, "too few")
    assert not acceptance.accepted([figure])


def test_an_unknown_value_is_no_pass() -> None:
    nan = float("nan")
    for figure in (acceptance.at_most("k", "name", Estimate(nan, nan, nan, 0), 1.0),
                   acceptance.between("k", "name", Estimate(nan, nan, nan, 5), 0.0, 1.0)):
        assert figure.verdict in ("unknown", "fail")
        assert not acceptance.accepted([figure])


def test_too_many_outliers_fail_a_pull_whose_core_is_sound() -> None:
    found = Estimate(1.0, 0.99, 1.01, 5000)
    assert acceptance.between("k", "name", found, 0.9, 1.15).verdict == "pass"
    assert acceptance.between("k", "name", found, 0.9, 1.15, sound=False).verdict == "fail"


def test_pooling_adds_cases(good: Store, figures: dict[str, Figure]) -> None:
    both = {figure.key: figure for figure in judge([good, good])}
    assert both["raw_8_10"].n == 2 * figures["raw_8_10"].n
    assert both["association"].value == figures["association"].value
    assert both["s50_raw"].high - both["s50_raw"].low < figures["s50_raw"].high - figures["s50_raw"].low


def test_the_printed_table_has_a_line_per_figure(figures: dict[str, Figure]) -> None:
    lines = acceptance.table(list(figures.values())).splitlines()
    assert len(lines) == len(figures) + 2
    assert lines[2].startswith("Raw: S/N of 50 % completeness")
    assert all(line.endswith(("pass", "quoted")) for line in lines[2:])


def test_settings_stand_side_by_side(good: Store, broken: Callable[[Knobs], Store]) -> None:
    lines = acceptance.side_by_side({"greedy": [good, good], "likelihood": [broken(Knobs(split=0.1))]}).splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:2] == ["greedy", "1.0000"]
    assert float(lines[2].split()[1]) < 0.95
