import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from reports.contributions import Form, contrast, estimate, forms, freedom, quantile, unseen
from reports.terms import Statistic, Terms

STATISTICS: tuple[Statistic, ...] = ("ratio", "abs_ratio", "median", "std", "rms", "percentile98")
SMOOTH: tuple[Statistic, ...] = ("ratio", "abs_ratio", "std", "rms")


def terms(rng: np.random.Generator, statistic: Statistic, *, n: int = 400, units: int = 20, objects: int = 60,
          scale: float = 1.0) -> Terms:
    unit, seen = rng.integers(0, units, n), rng.integers(0, objects, n)
    weight = rng.uniform(0.5, 2.0, n)
    value = scale * (3.0 + rng.normal(size=n) + 0.5 * rng.normal(size=units)[unit])
    return Terms(value * weight if "ratio" in statistic else value, weight, unit, seen, statistic)


def reweighted(rows: Terms, factor: np.ndarray) -> Terms:
    """Each row counted `factor` times."""
    value = rows.value * factor if "ratio" in rows.statistic else rows.value
    return Terms(value, rows.weight * factor, rows.unit, rows.object, rows.statistic)


# --- the statistics --------------------------------------------------------------------------------------------------

def test_the_statistics_are_numpys_where_all_rows_weigh_alike() -> None:
    rng = np.random.default_rng(1)
    for n in (11, 12):
        value, unit = rng.normal(1.0, 1.0, n), np.arange(n)
        found = {s: estimate(Terms(value, np.ones(n), unit, unit, s)) for s in STATISTICS}
        assert found["ratio"] == pytest.approx(value.mean())
        assert found["abs_ratio"] == pytest.approx(abs(value.mean()))
        assert found["median"] == pytest.approx(np.median(value))
        assert found["std"] == pytest.approx(value.std())
        assert found["rms"] == pytest.approx(np.sqrt(np.mean(value**2)))
        assert found["percentile98"] == pytest.approx(np.quantile(value, 0.98, method="hazen"))


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_row_of_weight_two_is_two_rows(statistic: Statistic) -> None:
    rng = np.random.default_rng(2)
    value, unit = rng.normal(size=201), np.arange(201)
    often = rng.integers(1, 3, 201)
    repeated = np.repeat(value, often)
    plain = estimate(Terms(repeated, np.ones(len(repeated)), unit[:1].repeat(len(repeated)), unit, statistic))
    weighted = estimate(Terms(value * often if "ratio" in statistic else value, often.astype(float), unit, unit,
                              statistic))
    # between two order statistics the middles of the weights lie elsewhere: by less than a neighbour's distance
    tolerance = 0.05 if statistic in ("median", "percentile98") else 1e-12
    assert weighted == pytest.approx(plain, abs=tolerance)


def test_rows_of_unknown_value_are_left_out_and_none_at_all_have_no_figure() -> None:
    unit = np.arange(3)
    rows = Terms(np.array([1.0, np.nan, 3.0]), np.ones(3), unit, unit)
    assert estimate(rows) == 2.0
    nothing = Terms(np.zeros(0), np.zeros(0), np.zeros(0, int), np.zeros(0, int), "median")
    assert np.isnan(estimate(nothing))
    assert contrast(rows, nothing) is None
    assert np.isnan(estimate(Terms(np.ones(1), np.ones(1), unit[:1], unit[:1], "std")))


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 5)), min_size=1, max_size=12), st.floats(0, 1))
def test_a_quantile_lies_among_its_values(rows: list[tuple[float, float]], q: float) -> None:
    value, weight = np.array(rows).T
    assert value.min() <= float(quantile(value, weight, q)) <= value.max()


# --- influences ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("statistic", SMOOTH)
def test_contributions_are_the_statistics_derivative(statistic: Statistic) -> None:
    rng = np.random.default_rng(3)
    base, head = terms(rng, statistic), terms(rng, statistic, scale=1.1)
    c = contrast(base, head)
    assert c is not None
    step = 1e-6
    for unit in range(3):
        for side, contributions in ((base, c.of_base), (head, c.of_head)):
            more = reweighted(side, 1 + step * (side.unit == unit))
            slope = (estimate(more) - estimate(side)) / step
            assert contributions[c.unit == unit].sum() == pytest.approx(slope, rel=1e-3, abs=1e-7)


def test_a_medians_contributions_shift_it_by_what_a_visit_less_does() -> None:
    rng = np.random.default_rng(4)
    base, head = terms(rng, "median", n=20_000), terms(rng, "median", n=20_000)
    c = contrast(base, head)
    assert c is not None
    for unit in range(3):
        less = estimate(reweighted(head, 1.0 - 0.5 * (head.unit == unit))) - estimate(head)
        assert -0.5 * c.of_head[c.unit == unit].sum() == pytest.approx(less, abs=0.004)
    assert c.of_head.sum() == pytest.approx(0.0, abs=1e-3)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.sampled_from(STATISTICS))
def test_exchanging_the_sides_of_visits_changes_the_sign_of_their_shares(seed: int, statistic: Statistic) -> None:
    rng = np.random.default_rng(seed)
    base, head = terms(rng, statistic, n=60, units=6), terms(rng, statistic, n=50, units=6)
    turned = rng.random(6) < 0.5

    def mixed(mine: Terms, other: Terms) -> Terms:
        keep, bring = ~turned[mine.unit], turned[other.unit]
        return Terms(*(np.concatenate([getattr(mine, name)[keep], getattr(other, name)[bring]])
                       for name in ("value", "weight", "unit", "object")), mine.statistic)

    c, d = contrast(base, head), contrast(mixed(base, head), mixed(head, base))
    assert c is not None
    assert d is not None
    shares, after = (np.bincount(x.unit, x.swap, x.n_units) for x in (c, d))
    np.testing.assert_allclose(after, np.where(turned, -shares, shares), atol=1e-9)


# --- variances -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("statistic", ["ratio", "std"])
def test_the_variance_over_visits_is_the_bootstraps(statistic: Statistic) -> None:
    """scipy's bootstrap of visits is the oracle, at 4 sigma of its own noise and of the terms left out."""
    rng = np.random.default_rng(5)
    base, head = terms(rng, statistic, units=40), terms(rng, statistic, units=40)
    base, head = (Terms(t.value, t.weight, t.unit, t.object + 1000 * t.unit, t.statistic) for t in (base, head))
    c = contrast(base, head)
    assert c is not None
    assert not c.repeated

    def difference(units: np.ndarray) -> float:
        times = np.bincount(units, minlength=40).astype(float)
        kept = [reweighted(t, times[t.unit]) for t in (base, head)]
        return estimate(kept[1]) - estimate(kept[0])

    found = bootstrap((np.arange(40),), difference, vectorized=False, n_resamples=1500, method="percentile",
                      rng=np.random.default_rng(6))
    ours = np.sqrt(forms(c)[1].at(1.0))
    assert ours == pytest.approx(found.standard_error, rel=4 / np.sqrt(2 * 1500) + 0.03)


def test_chance_in_objects_counts_beside_chance_in_visits() -> None:
    """Against the scatter of 600 samples; over visits alone it would be too small by far."""
    rng = np.random.default_rng(7)
    unit, seen = (x.ravel() for x in np.meshgrid(np.arange(40), np.arange(30)))
    both, visits_only, found = [], [], []
    for _ in range(600):
        value = (rng.normal(size=40)[unit] + 1.5 * rng.normal(size=30)[seen] + rng.normal(size=len(unit)))
        c = contrast(Terms(np.zeros(len(unit)), np.ones(len(unit)), unit, seen),
                     Terms(value, np.ones(len(unit)), unit, seen))
        assert c is not None
        found.append(c.head - c.base)
        variances = [f.at(1.0) for f in forms(c)]
        both.append(max(variances))
        visits_only.append(variances[1])
    true = np.var(found)     # to 6 %
    assert np.mean(both) == pytest.approx(true, rel=0.2)
    assert np.mean(visits_only) < 0.4 * true


def test_a_ratios_form_is_the_variance_of_its_combination() -> None:
    form = Form(2.0, 0.5, 3.0)
    covariance = np.array([[2.0, 0.5], [0.5, 3.0]])
    for rho in (-1.0, 0.0, 1.3):
        combination = np.array([-rho, 1.0])
        assert form.at(rho) == pytest.approx(combination @ covariance @ combination)
    assert (form + form - form) == form


def flips(lost: int, *, visits: int = 20, per_visit: int = 10) -> tuple[Terms, Terms]:
    """Sources that are all found on one side; the other loses the first of so many visits."""
    n = visits * per_visit
    unit = np.repeat(np.arange(visits), per_visit)
    value = np.ones(n)
    value[np.arange(lost) * per_visit % n + np.arange(lost) * per_visit // n] = 0.0
    return Terms(np.ones(n), np.ones(n), unit, np.arange(n)), Terms(value, np.ones(n), unit, np.arange(n))


def test_no_flips_leave_one_more_either_way_open() -> None:
    c = contrast(*flips(0))
    assert c is not None
    assert c.base == c.head == 1.0
    assert forms(c)[0].at(1.0) == pytest.approx(0.0, abs=1e-20)
    assert np.sqrt(unseen(c, 1.0).at(1.0)) == pytest.approx(np.sqrt(2) / 200)


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("constant", [0.0, 0.7, 7.0])
def test_rows_that_are_all_alike_prove_nothing_when_they_are_few(statistic: Statistic, constant: float) -> None:
    unit = np.arange(3)
    rows = Terms(np.full(3, constant), np.ones(3), unit, unit, statistic)
    c = contrast(rows, rows)
    assert c is not None
    assert np.sqrt(unseen(c, 1.0).at(1.0)) > 0.4 * (constant or 1.0)


def test_what_is_unseen_fades_as_flips_are_seen_everywhere() -> None:
    parts = []
    for lost in (1, 5, 20):
        c = contrast(*flips(lost))
        assert c is not None
        parts.append(unseen(c, 1.0).at(1.0) / max(f.at(1.0) for f in forms(c)))
    assert parts[0] > parts[1] > parts[2]
    assert parts[0] > 0.4
    assert parts[2] < 0.11


def test_chance_is_never_less_than_that_of_single_rows() -> None:
    """Each visit lost one source: they do not differ from each other, by luck."""
    c = contrast(*flips(20))
    assert c is not None
    single, visits = (f.at(1.0) for f in forms(c))
    assert visits == pytest.approx(0.0, abs=1e-20)
    assert single == pytest.approx(20 * 0.9 / 200**2)


def test_few_visits_that_differ_give_few_degrees_of_freedom() -> None:
    frees = []
    for lost in (2, 6, 30):
        c = contrast(*flips(lost))
        assert c is not None
        frees.append(freedom(c, 1.0, forms(c)[1].at(1.0)))
    assert 2 < frees[0] < 8
    assert frees[0] < frees[1] <= frees[2] <= 19
