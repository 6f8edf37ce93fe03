"""Numbers at counts fidelity: their law against catalogue fidelity, what they are keyed by, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from scipy import stats

from pipeline.errors import InputError
from simulators.streams import stream
from twin.costs import CostFile, CostTable, StepCost
from twin.counts import FILTERS, CountsModel, draw_numbers, read_model
from twin.counts_fit import LEAST, SAMPLE, fit_model, sample, to_toml
from twin.counts_night import made
from twin.plan import plan_of
from twin.scenario import read_scenario

SCENARIOS = Path(__file__).parents[2] / "scenarios"
SMALL = SCENARIOS / "platform_small.toml"
FRESH_SEEDS = range(201, 213)      # the shipped model was fitted to seeds 1 to 60


@pytest.fixture(scope="module")
def catalogue() -> np.ndarray:
    """Detector-visits at catalogue fidelity that the shipped model has not seen."""
    return sample(read_scenario(SCENARIOS / "counts_sources.toml"), FRESH_SEEDS)


@pytest.fixture(scope="module")
def model() -> CountsModel:
    return read_model(SCENARIOS / "counts" / "catalogue.toml")


def p_of_detections(model: CountsModel, numbers: np.ndarray) -> float:
    """Kolmogorov-Smirnov p of numbers of detections, made continuous by randomised ranks, under a model."""
    n, mean = model.detector_shape, model.detected
    law = stats.nbinom(n, n / (n + mean)) if n else stats.poisson(mean)
    below, at = law.cdf(numbers - 1), law.pmf(numbers)
    return float(stats.kstest(below + stream(1, "ranks").random(len(numbers)) * at, "uniform").pvalue)


def p_of_spread(model: CountsModel, numbers: np.ndarray) -> float:
    """Chi-square p, on both sides, of the scatter of numbers of detections about a model's mean."""
    mean = model.detected
    variance = mean + (mean**2 / model.detector_shape if model.detector_shape else 0.0)
    below = stats.chi2.cdf(np.sum((numbers - mean) ** 2) / variance, len(numbers))
    return float(2 * min(below, 1 - below))


def p_of_filters(model: CountsModel, rows: np.ndarray) -> float:
    """Chi-square p of what the filters take and leave, all detector-visits together."""
    left, expected = float(rows["n_detected"].sum()), []
    for name in FILTERS:
        expected.append(left * getattr(model, name))
        left -= expected[-1]
    found = [float(rows[f"n_{name}"].sum()) for name in FILTERS]
    kept = [k for k, value in enumerate(expected) if value >= 1.0]
    assert all(found[k] == 0 for k in range(len(FILTERS)) if k not in kept)
    expected, found = [expected[k] for k in kept], [found[k] for k in kept]
    total = float(rows["n_detected"].sum())
    return float(stats.chisquare([*found, total - sum(found)], [*expected, total - sum(expected)]).pvalue)


def test_the_shipped_law_is_that_of_the_catalogue_fidelity(catalogue: np.ndarray, model: CountsModel) -> None:
    first = catalogue["n_detected"][catalogue["number"] == 0]      # visits of one field are not independent
    assert len(first) == len(FRESH_SEEDS)
    assert p_of_detections(model, first) > 1e-3
    assert p_of_spread(model, first) > 1e-3
    assert p_of_filters(model, catalogue) > 1e-3
    later = catalogue[catalogue["number"] > 0]
    fresh = later["n_fresh"].sum() / later["n_alerts"].sum()
    assert abs(fresh - model.fresh) < 0.05
    assert catalogue["bytes"].sum() / catalogue["n_alerts"].sum() == pytest.approx(model.alert_bytes, rel=0.1)


@pytest.mark.parametrize("wrong", [{"detected": 1.3}, {"detected": 0.75}, {"detector_shape": 0.02}])
def test_a_wrong_law_of_detections_is_told(catalogue: np.ndarray, model: CountsModel, wrong: dict[str, float]) -> None:
    first = catalogue["n_detected"][catalogue["number"] == 0]
    changed = structs.replace(model, **{name: getattr(model, name) * factor for name, factor in wrong.items()})
    assert min(p_of_detections(changed, first), p_of_spread(changed, first)) < 1e-3


@pytest.fixture(scope="module")
def fields() -> np.ndarray:
    """One visit of each of many fields: independent of each other."""
    return sample(read_scenario(SCENARIOS / "counts_sources.toml"), range(301, 361), visits=1)


def test_a_law_a_little_wrong_or_without_scatter_is_told_by_many_fields(fields: np.ndarray, model: CountsModel) -> None:
    numbers = fields["n_detected"]
    assert len(numbers) == 60
    assert min(p_of_detections(model, numbers), p_of_spread(model, numbers)) > 1e-3
    for wrong in (structs.replace(model, detected=1.1 * model.detected),
                  structs.replace(model, detected=0.9 * model.detected), structs.replace(model, detector_shape=0.0)):
        assert min(p_of_detections(wrong, numbers), p_of_spread(wrong, numbers)) < 1e-3
    each = fields["bytes"] / fields["n_alerts"]
    assert abs(np.log(each).mean() - np.log(model.alert_bytes) + model.alert_bytes_spread**2 / 2) < (
        4 * model.alert_bytes_spread / np.sqrt(60))
    spread = float(np.log(each).std(ddof=1))
    assert abs(spread - model.alert_bytes_spread) < 4 * model.alert_bytes_spread / np.sqrt(2 * 60)


@pytest.mark.parametrize("wrong", [{"reliability": 0.2}, {"reliability": 0.09}, {"quality": 0.03}])
def test_a_wrong_share_of_a_filter_is_told(catalogue: np.ndarray, model: CountsModel, wrong: dict[str, float]) -> None:
    assert p_of_filters(structs.replace(model, **wrong), catalogue) < 1e-3


def test_a_fit_gives_back_the_law_it_was_drawn_from() -> None:
    true = CountsModel(source="", detector_shape=8.0, quality=0.05, reliability=0.2, new_objects=0.02, fresh=0.3,
                       objects_per_alert=3.0, history_per_object=7.0, alert_bytes=5e4, alert_bytes_spread=0.1)
    drawn = draw_numbers(true, 60.0, 1.0, 4000, stream(3, "law"))
    rows = np.zeros(len(drawn), SAMPLE)
    for name in drawn.dtype.names or ():
        rows[name] = drawn[name]
    rows["number"] = 1
    found = fit_model(rows, "a law")
    assert found.detector_shape == pytest.approx(8.0, rel=0.1)
    for name in ("quality", "reliability", "new_objects", "fresh", "objects_per_alert", "history_per_object",
                 "alert_bytes", "alert_bytes_spread"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=0.06), name
    with pytest.raises(InputError, match=f"{LEAST - 1} detector-visits are too few"):
        fit_model(rows[:LEAST - 1], "few")


def test_a_model_survives_its_file_and_a_bad_one_is_refused(tmp_path: Path) -> None:
    model = CountsModel(source="a test", quality=0.125)
    path = tmp_path / "model.toml"
    path.write_text(to_toml(model, "a note"))
    assert read_model(path) == model
    path.write_text('source = "x"\nquality = 1.5\n')
    with pytest.raises(InputError, match=r"counts model .*model\.toml.*<= 1"):
        read_model(path)
    path.write_text('source = "x"\nreliability = 1.0\n')
    with pytest.raises(InputError, match="its filters leave no alerts"):
        read_model(path)


def test_numbers_depend_on_seed_and_visit_alone() -> None:
    path = SCENARIOS / "rubin_2026.toml"
    short, long = (made(read_scenario(path, [f"counts.visits={n}", f"platform.workers={w}"]), SCENARIOS).numbers
                   for n, w in ((5, 100), (9, 1700)))
    assert (short.counts == long.counts[:len(short.counts)]).all()
    assert (short.work == long.work[:len(short.work)]).all()
    other = made(read_scenario(path, ["counts.visits=5"], seed=2), SCENARIOS).numbers
    assert (other.counts["n_detected"] != short.counts["n_detected"]).any()


def test_a_visit_has_as_many_alerts_as_the_scenario_says() -> None:
    scenario = read_scenario(SCENARIOS / "rubin_2026.toml", ["counts.visits=300", 'counts.cadence="regular"'])
    numbers = made(scenario, SCENARIOS).numbers
    per_visit = numbers.counts["n_alerts"].reshape(300, 172).sum(axis=1)
    spread = per_visit.std(ddof=1) / np.sqrt(300)
    assert abs(per_visit.mean() - 10_000) < 4 * spread
    assert np.std(np.log(per_visit)) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(600))


def test_the_scheduler_plans_the_night_and_says_when_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twin.plan.NIGHTS", 1)
    plan = plan_of(read_scenario(SCENARIOS / "rubin_2026.toml", ["counts.visits=200"]))
    gaps = np.diff(plan.opens_s)
    assert len(plan) == 200
    assert gaps.min() > 33.0
    assert np.median(gaps) < 45.0
    assert len(np.unique(plan.visit)) == 200
    with pytest.raises(InputError, match=r"counts\.visits: 5000 visits are wanted, the longest"):
        plan_of(read_scenario(SCENARIOS / "rubin_2026.toml", ["counts.visits=5000"]))


def test_costs_scatter_by_their_law_about_the_line() -> None:
    table = CostTable(CostFile(machine="", date="", steps={
        "even": StepCost(a=2.0, b=0.5), "wide": StepCost(a=10.0, law="lognormal", spread=0.4),
        "free": StepCost(a=3.0, law="exponential"), "fitted": StepCost(a=1.0, runs=40, rms_fraction=0.2)}), scale=2.0)
    rng, sizes = np.random.default_rng(1), np.full(20_000, 4.0)
    assert (table.sample("even", sizes, rng) == 8.0).all()
    wide, free, fitted = (table.sample(name, sizes, rng) for name in ("wide", "free", "fitted"))
    assert wide.mean() == pytest.approx(20.0, rel=0.015)
    assert np.log(wide).std() == pytest.approx(0.4, rel=0.03)
    assert stats.kstest(free, stats.expon(scale=6.0).cdf).pvalue > 1e-3
    assert stats.kstest(free, stats.expon(scale=6.6).cdf).pvalue < 1e-3
    assert np.log(fitted).std() == pytest.approx(0.2, rel=0.03)
    assert table.origin("fitted") == "measured"
    assert table.origin("even").startswith("modelled")
    with pytest.raises(InputError, match="no cost for Step 'unheard'"):
        table.sample("unheard", sizes, rng)
