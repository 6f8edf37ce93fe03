"""A past at catalogue fidelity, and the night that begins with it."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.ports import History
from pipeline.stores.duckdb import DuckDBStore
from reports.store import Store
from schemas.table import TABLES
from simulators import cadence
from simulators.conditions import SITE, transit
from twin.cache import Cache
from twin.cli import main
from twin.night import run_night
from twin.prefill import STORE, prefill
from twin.scenario import Scenario

from .conftest import SMALL, small

PAST = {"nights": 12, "blocks": ["rr"], "pairs": 1}


def scenario(**past: object) -> Scenario:
    given: dict[str, dict[str, object]] = SMALL["simulation"]  # type: ignore[assignment]
    sky = given["sky"] | {"variables": {"stars_per_field": 100.0, "mag": [17.5, 20.0]}}
    return small(simulation=given | {"past": PAST | past, "sky": sky})


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("past") / "past"
    made = prefill(scenario(), folder)
    assert f"{made}".startswith("24 earlier detector-visits, ")
    return folder


def tables(folder: Path) -> dict[str, np.ndarray]:
    store = DuckDBStore(folder / STORE)
    try:
        return {name: store.table(name) for name in ("DiaObject", "DiaSource", "DiaForcedSource")}
    finally:
        store.close()


# --- visits ----------------------------------------------------------------------------------------------------------

def test_earlier_visits_are_pairs_in_the_season_before_the_night() -> None:
    config = scenario(blocks=["gr", "ri"], nights=40).simulation
    visits = cadence.past(config, 3)
    nights = np.array([int(np.floor(v.mjd_tai - 0.5)) for v in visits]).reshape(-1, 2)
    assert [a.band + b.band for a, b in zip(visits[::2], visits[1::2], strict=True)] == ["gr", "ri"] * 20
    assert (nights[:, 0] == nights[:, 1]).all()
    assert (np.diff(nights[:, 0]) > 0).all()
    assert len({v.visit for v in visits} | {v.visit for v in cadence.history(config, 3)}) == 80 + 2
    gaps = np.diff([v.mjd_tai for v in visits])[::2] * 1440
    assert (np.abs(gaps - 33.5) < 2.5).all()
    assert visits[-1].mjd_tai < cadence.visits(config, 3)[0].mjd_tai - 0.5
    from_midnight = [transit(config.field.ra, n) - n + SITE[0] / 360 for n in nights[:, 0]]
    assert np.max(np.abs(from_midnight)) < 5.1 / 24
    assert max(v.airmass for v in visits) < 1.2


def test_a_season_that_is_too_short_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prefill", "scenarios/wide_year.toml", "--out", str(tmp_path / "past"), "simulation.past.span_d=30",
             "simulation.past.season_h=2.0"]
    assert main(words) == 2
    assert "past.nights: 41 nights are wanted, the field transits within 2 h of midnight in 30 of the 30 days before" \
        in capsys.readouterr().err
    assert not (tmp_path / "past").exists()


# --- what is in the store --------------------------------------------------------------------------------------------

def test_what_varied_before_has_one_object_with_its_history(past: Path) -> None:
    store, found = Store(past), tables(past)
    sources, truth = found["DiaSource"], store.table("truth")
    assert len(sources) == store.table("exposure_log")["n_sources"].sum() > 100
    strong = np.abs(truth["flux"]) > 8 * truth["flux_err_optimum"]
    often = [i for i in np.unique(truth["truthId"]) if strong[truth["truthId"] == i].sum() >= 10]
    assert len(often) >= 5
    for identifier in often:
        rows = truth[(truth["truthId"] == identifier) & strong]
        near = np.hypot((sources["ra"] - rows["ra"][0]) * np.cos(np.radians(rows["dec"][0])),
                        sources["dec"] - rows["dec"][0]) < 0.5 / 3600
        objects, counts = np.unique(sources["diaObjectId"][near], return_counts=True)
        assert len(objects) == 1
        assert counts[0] >= 0.9 * len(rows)
        versions = found["DiaObject"][found["DiaObject"]["diaObjectId"] == objects[0]]
        assert versions["nDiaSources"].max() == counts[0] == len(versions)


def test_every_row_is_explained_by_the_sky_or_is_one_of_the_few_false_ones(past: Path) -> None:
    sources, truth = tables(past)["DiaSource"], Store(past).table("truth")
    truth = truth[np.abs(truth["flux"]) > 1.0 * truth["flux_err_optimum"]]
    unexplained = 0
    for row in sources:
        here = truth[truth["visit"] == row["visit"]]
        distance = np.hypot((here["ra"] - row["ra"]) * np.cos(np.radians(row["dec"])), here["dec"] - row["dec"]) * 3600
        unexplained += distance.min() > 1.5
    expected = 0.9 * 0.44**2 * 24      # of the model, per 10^6 px; the reliability cut takes most of them
    assert unexplained < expected + 4 * np.sqrt(expected)


def test_a_past_is_the_same_whoever_draws_it(past: Path, tmp_path: Path) -> None:
    prefill(scenario(), tmp_path / "again")
    for name, rows in tables(past).items():
        again = tables(tmp_path / "again")[name]
        assert TABLES[name].to_columns(rows).keys() == TABLES[name].to_columns(again).keys()
        assert rows.tobytes() == again.tobytes()


def test_visits_of_a_band_without_a_template_have_no_work(tmp_path: Path) -> None:
    given: dict[str, dict[str, object]] = SMALL["simulation"]  # type: ignore[assignment]
    missing = small(simulation=given | {"cadence": given["cadence"] | {"history_without": ["g"]},
                                        "past": PAST | {"nights": 2, "blocks": ["gr"]}})
    assert f"{prefill(missing, tmp_path / 'past')}".startswith("2 earlier detector-visits, ")
    assert set(Store(tmp_path / "past").table("exposure_log")["band"]) == {b"r"}


# --- the night after -------------------------------------------------------------------------------------------------

def test_a_night_goes_on_with_the_objects_of_its_past(past: Path, tmp_path: Path) -> None:
    cache = Cache.open(tmp_path / "cache")
    run_night(scenario(), tmp_path / "alone", cache=cache)
    run_night(scenario(), tmp_path / "run", past=past, cache=cache)
    with_past, without = Store(tmp_path / "run"), Store(tmp_path / "alone")
    sources, alone = with_past.table("DiaSource"), without.table("DiaSource")
    assert sources["diaSourceId"].tolist() == alone["diaSourceId"].tolist()     # the past's own rows stay away
    assert with_past.table("exposure_log")["n_new_objects"].sum() < without.table("exposure_log")["n_new_objects"].sum()
    earlier = tables(past)
    known = np.isin(sources["diaObjectId"], earlier["DiaObject"]["diaObjectId"])
    assert 5 <= known.sum() < len(sources)
    store = DuckDBStore(tmp_path / "run" / STORE)
    last = sources["midpointMjdTai"].max()
    history: History = store.history(np.unique(sources["diaObjectId"][known]), last - 400, last + 1)
    store.close()
    assert (history.sources["midpointMjdTai"] < sources["midpointMjdTai"].min()).sum() > 20
    more = with_past.table("publication")["bytes"].astype(float) - without.table("publication")["bytes"]
    assert (more >= 0).all()
    assert more.max() > 5000       # a history of ten sources and twenty forced points


@pytest.mark.parametrize(("harm", "message"), [
    ({"seed": 4}, r"of another sky than the night: seed \(3 there, 4 here\)"),
    ({"simulation": SMALL["simulation"] | {"conditions": {"fwhm_eff": 1.0}}},  # type: ignore[operator]
     r"of another sky than the night: simulation\.conditions"),
])
def test_a_past_of_another_sky_is_refused(past: Path, tmp_path: Path, harm: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_night(small(**harm), tmp_path / "run", past=past)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_past_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no past in this folder"):
        run_night(small(), tmp_path / "run", past=tmp_path)


@pytest.mark.accept
def test_a_deep_field_has_objects_of_three_hundred_sources(tmp_path: Path) -> None:
    assert main(["prefill", "scenarios/deep_year.toml", "--out", str(tmp_path / "past"), "--quiet"]) == 0
    assert tables(tmp_path / "past")["DiaObject"]["nDiaSources"].max() >= 300
