"""Any program's detections against the truth: every format, what is said and what is not, and what is refused."""

import ast
import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import numpy as np
import pytest
from astropy.io import fits

from pipeline.alerts import read_packets
from pipeline.errors import InputError
from pipeline.transform import transform
from reports.compare import compare
from reports.comparison_page import html
from reports.known import TOPICS
from reports.match import Matches, match
from reports.metrics import METRICS, metrics_of
from reports.outcome import of_run
from reports.paired import Rules
from reports.render import document, gather, render, sections
from reports.store import Store
from reports.store import empty as blank
from schemas.measures import EXPOSURE_LOG, MEASUREMENT
from schemas.wcs import Wcs
from simulators.camera import pointing_wcs
from twin.answers import SHEET, read_answers
from twin.cli import main
from twin.export import export_run
from twin.halves import observatory
from twin.recorder import ParquetRecorder
from twin.score import score_catalog, summary

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "sep_pipeline.py"
MOST = ("diaSourceId", "visit", "detector", "ra", "dec", "x", "y", "psfFlux", "psfFluxErr", "snr", "isNegative",
        "reliability", "diaObjectId", "ssObjectId", "isDipole", "raErr", "decErr", "trailLength", "trailAngle")

Rows = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def ours(night: Path) -> Rows:
    """Columns of the night's own DIASources."""
    sources = Store(night).table("DiaSource")
    return {name: np.ascontiguousarray(sources[name]) for name in MOST}


def write_csv(path: Path, rows: Mapping[str, Any], seed: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: np.asarray(values).tolist() for name, values in rows.items()}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *(["seed"] if seed is not None else [])])
        for row in zip(*columns.values(), strict=True):
            writer.writerow([*("" if value != value else repr(value) for value in row),
                             *([seed] if seed is not None else [])])
    return path


def scored(night: Path, rows: Mapping[str, Any], folder: Path) -> Matches:
    return match(Store(score_catalog(night, write_csv(folder / "rows.csv", rows), folder / "scored")))


def found(matches: Matches) -> set[tuple[int, int]]:
    """Visit and id of the true sources that have an alert."""
    truth = matches.truth[matches.alerted]
    return set(zip(truth["visit"].tolist(), truth["truthId"].tolist(), strict=True))


# --- formats ---------------------------------------------------------------------------------------------------------

def as_parquet(folder: Path, rows: Rows, run: Path) -> Path:
    with duckdb.connect(":memory:") as connection:
        connection.register("given", {name: np.asarray(values) for name, values in rows.items()})
        connection.execute(f"COPY given TO '{folder / 'a.parquet'}' (FORMAT parquet)")
    return folder / "a.parquet"


def as_csv(folder: Path, rows: Rows, run: Path) -> Path:
    return write_csv(folder / "a.csv", rows)


def as_tabs(folder: Path, rows: Rows, run: Path) -> Path:
    path = write_csv(folder / "a.tsv", {name.upper(): values for name, values in rows.items()})
    path.write_text(path.read_text().replace(",", "\t"))
    return path


def as_fits(folder: Path, rows: Rows, run: Path) -> Path:
    kinds = [(name.upper(), values.dtype) for name, values in rows.items()]
    table = np.empty(len(rows["visit"]), kinds)
    for name, values in rows.items():
        table[name.upper()] = values
    fits.BinTableHDU(table).writeto(folder / "a.fits")
    return folder / "a.fits"


def as_container(folder: Path, rows: Rows, run: Path) -> Path:
    """Alerts of a schema of somebody's own: a diaSource with fewer fields, in one object container."""
    kinds = {"i": "long", "b": "boolean", "f": "double"}
    inner = {"type": "record", "name": "diaSource", "fields": [
        {"name": name, "type": ["null", kinds[values.dtype.kind]]} for name, values in rows.items()]}
    schema = {"type": "record", "name": "alert", "fields": [{"name": "alertId", "type": "long"},
                                                            {"name": "diaSource", "type": inner}]}
    columns = {name: values.tolist() for name, values in rows.items()}
    records = [{"alertId": i, "diaSource": {name: None if v[i] != v[i] else v[i] for name, v in columns.items()}}
               for i in range(len(rows["visit"]))]
    buffer = io.BytesIO()
    fastavro.writer(buffer, schema, records)
    (folder / "a.avro").write_bytes(buffer.getvalue())
    return folder / "a.avro"


def as_alerts(folder: Path, rows: Rows, run: Path) -> Path:
    """The run's own folder of alerts: object containers of Rubin's schema."""
    return run / "alerts"


def as_packets(folder: Path, rows: Rows, run: Path) -> Path:
    """One file per packet, framed as Kafka carries it."""
    for i, packet in enumerate(read_packets(run / "alerts")):
        (folder / f"{i:04d}.avro").write_bytes(packet)
    return folder


def as_parts(folder: Path, rows: Rows, run: Path) -> Path:
    """The run's own table: a folder of Parquet parts."""
    return run / "measures" / "DiaSource"


FORMATS = (as_parquet, as_csv, as_tabs, as_fits, as_container, as_alerts, as_packets, as_parts)


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_our_own_alerts_score_as_they_did_in_every_format(
        write: Callable[[Path, Rows, Path], Path], night: Path, ours: Rows, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    theirs = match(Store(score_catalog(night, write(tmp_path / "given", ours, night), tmp_path / "scored")))
    own = match(Store(night))
    assert found(theirs) == found(own)
    assert len(found(own)) > 15
    alerts, expected = theirs.sources[theirs.sources["alert"]], own.sources[own.sources["alert"]]
    alerts, expected = (rows[np.argsort(rows["id"])] for rows in (alerts, expected))
    for name in ("id", "visit", "detector", "ra", "dec", "x", "y", "snr", "psfFlux", "psfFluxErr", "reliability",
                 "isNegative", "isDipole", "diaObjectId", "ssObjectId", "raErr", "decErr", "midpointMjdTai"):
        np.testing.assert_allclose(alerts[name], expected[name], rtol=1e-6, err_msg=name)
    # the cut on reliability is known from the alerts alone: what it stopped is not
    assert set(theirs.sources["id"]) == set(own.sources["id"][own.sources["alert"]])


def test_files_of_a_folder_are_one_catalogue(night: Path, ours: Rows, tmp_path: Path) -> None:
    """The second file lacks columns of the first: they are missing there, and large ids stay whole."""
    first = ours["visit"] == ours["visit"].min()
    write_csv(tmp_path / "given" / "1.csv", {n: v[first] for n, v in ours.items()})
    bare = {n: ours[n][~first] for n in ("visit", "detector", "x", "y", "ra", "dec", "psfFlux")}
    write_csv(tmp_path / "given" / "2.csv", bare)
    answers = read_answers(tmp_path / "given")
    assert len(answers.rows) == len(first)
    np.testing.assert_array_equal(answers.rows["diaObjectId"][:first.sum()], ours["diaObjectId"][first])
    assert not answers.rows["diaObjectId"][first.sum():].any()
    assert np.isnan(answers.rows["snr"][first.sum():]).all()


# --- positions and measurements --------------------------------------------------------------------------------------

@pytest.mark.parametrize("pair", [("ra", "dec"), ("x", "y")])
def test_one_pair_of_coordinates_is_enough(pair: tuple[str, str], night: Path, ours: Rows, tmp_path: Path) -> None:
    matches = scored(night, {n: ours[n] for n in ("diaSourceId", "visit", "psfFlux", *pair)}, tmp_path)
    own = match(Store(night))
    assert found(matches) == found(own)
    order = np.argsort(matches.sources["id"])
    for name, tolerance in (("x", 1e-3), ("y", 1e-3), ("ra", 1e-7), ("dec", 1e-7)):
        expected = ours[name][np.argsort(ours["diaSourceId"])]
        assert np.abs(matches.sources[name][order] - expected).max() < tolerance, name


def test_shuffled_positions_find_nothing(night: Path, ours: Rows, tmp_path: Path) -> None:
    shuffled = np.random.default_rng(1).uniform(20, 420, (2, len(ours["visit"])))
    rows = {"visit": ours["visit"], "x": shuffled[0], "y": shuffled[1], "psfFlux": ours["psfFlux"]}
    assert len(found(scored(night, rows, tmp_path))) < 0.1 * len(found(match(Store(night))))


def test_signs_and_signal_to_noise_are_made_of_what_is_given(night: Path, tmp_path: Path) -> None:
    visit = int(Store(night).table("exposure_log")["visit"][0])
    base = {"visit": [visit] * 3, "x": [50.0, 60.0, 70.0], "y": [50.0, 60.0, 70.0]}
    by_flux = scored(night, base | {"flux": [10.0, -40.0, 5.0], "flux_err": [2.0, 4.0, 0.0]}, tmp_path / "flux")
    assert by_flux.sources["isNegative"].tolist() == [False, True, False]
    assert by_flux.sources["snr"][:2].tolist() == [5.0, 10.0]
    assert np.isnan(by_flux.sources["snr"][2])
    by_sign = scored(night, base | {"flux": [10.0, 40.0, 5.0], "sign": [1, -1, 1]}, tmp_path / "sign")
    assert by_sign.sources["isNegative"].tolist() == [False, True, False]
    assert by_sign.sources["psfFlux"].tolist() == [10.0, -40.0, 5.0]
    bare = scored(night, base, tmp_path / "bare")
    assert not bare.sources["isNegative"].any()
    assert np.isnan(bare.sources["snr"]).all()


def test_shapes_come_back_from_the_sky_as_they_were_in_pixels(night: Path, tmp_path: Path) -> None:
    """`pipeline.transform` takes lengths and angles to the sky; scoring takes them back."""
    visit = next(v for v in observatory(night).visits)
    measured = np.zeros(3, MEASUREMENT)
    measured["id"], measured["x"], measured["y"] = [0, 1, 2], [30.0, 220.0, 400.0], [410.0, 220.0, 25.0]
    measured["trailLength"], measured["trailAngle"] = [12.0, 30.0, 7.0], [-80.0, 33.0, 90.0]
    measured["dipoleLength"] = [3.0, 4.0, 5.0]
    with fits.open(min((night / "images").glob("*_calibrated.fits"))) as hdus:
        wcs = Wcs.from_header(hdus["IMAGE"].header)
    rows = transform(measured, wcs, visit, 94, 0.0)
    given = {n: rows[n] for n in ("visit", "x", "y", "trailLength", "trailAngle", "dipoleLength")}
    out = score_catalog(night, write_csv(tmp_path / "a.csv", given), tmp_path / "scored")
    back = Store(out).table("measurement")
    np.testing.assert_allclose(back["trailLength"], measured["trailLength"], rtol=1e-4)
    np.testing.assert_allclose(back["trailAngle"], measured["trailAngle"], atol=1e-3)
    np.testing.assert_allclose(back["dipoleLength"], measured["dipoleLength"], rtol=1e-3)


def test_detections_without_an_alert_are_raw_ones(night: Path, ours: Rows, tmp_path: Path) -> None:
    sent = np.arange(len(ours["visit"])) % 2 == 0
    matches = scored(night, {**ours, "alert": sent}, tmp_path)
    assert matches.sources["raw"].all()
    assert int(matches.sources["alert"].sum()) == int(sent.sum())
    stopped = matches.reasons[(matches.found >= 0) & matches.raw & ~matches.alerted]
    assert set(stopped) == {b"rejected: reliability"}


# --- what is judged, and what is not ---------------------------------------------------------------------------------

def test_nothing_that_our_own_pipeline_measured_is_kept(night: Path, ours: Rows, tmp_path: Path) -> None:
    out = Store(score_catalog(night, write_csv(tmp_path / "a.csv", ours), tmp_path / "scored"))
    truth, own = out.table("truth"), Store(night).table("truth")
    assert np.isfinite(own["forced_flux"]).any()
    assert own["mask_at"].any()
    assert not np.isfinite(truth["forced_flux"]).any()
    assert not np.isfinite(truth["forced_flux_err"]).any()
    assert not np.isfinite(truth["significance_at"]).any()
    assert not truth["mask_at"].any()
    for name in ("truthId", "x", "y", "ra", "dec", "flux", "snr", "input_mask", "kind", "isolated"):
        np.testing.assert_array_equal(truth[name], own[name])
    log = out.table("exposure_log")
    known = {name for name in EXPOSURE_LOG.names or () if log.dtype[name].kind == "f" and np.isfinite(log[name]).any()}
    assert known == {"midpointMjdTai", "exposure_s", "ra", "dec", "airmass", "shutter_close_mjd_tai",
                     "readout_end_mjd_tai", "true_fwhm_arcsec", "true_psf_sigma_px", "true_zeropoint", "true_sky_adu",
                     "true_m5"}
    assert (log["usable_px"] == -1).all()
    assert not {"step", "publication", "stamp", "trace", "star", "DiaObject", "DiaForcedSource"} & set(out.tables())


def test_answers_of_two_versions_are_laid_beside_each_other(night: Path, ours: Rows, tmp_path: Path) -> None:
    """A scored catalogue serves as the run that another one answers."""
    rows = {n: ours[n] for n in ("diaSourceId", "visit", "ra", "dec", "psfFlux")}
    first = score_catalog(night, write_csv(tmp_path / "a.csv", rows), tmp_path / "first")
    again = score_catalog(first, tmp_path / "a.csv", tmp_path / "again")
    for name in ("x", "y", "ra", "psfFlux", "diaSourceId"):
        np.testing.assert_array_equal(Store(again).table("DiaSource")[name], Store(first).table("DiaSource")[name])
    summaries = Store(first).table("DetectorVisitProcessingSummary")
    assert not np.isfinite(summaries["zeroPoint"]).any()
    fewer = score_catalog(first, write_csv(tmp_path / "b.csv", {n: v[::2] for n, v in rows.items()}), tmp_path / "b")
    result = compare(of_run(Store(first), 3), of_run(Store(fewer), 3), Rules(resamples=100))
    assert {flow.group for flow in result.flips.flows} <= {"lost", "false_gone"}


def test_a_step_of_ours_that_failed_did_not_fail_in_the_program(night: Path, ours: Rows, tmp_path: Path) -> None:
    run = tmp_path / "run"
    store = Store(night)
    log = store.table("exposure_log").copy()
    log["status"], log["reason"] = b"failed", b"PSF: 2 stars, 5 needed"
    log["nx"] = log["ny"] = -1
    (run / "templates").mkdir(parents=True)
    (run / "scenario.toml").write_text((night / "scenario.toml").read_text())
    (run / "templates" / "masks").symlink_to(night / "templates" / "masks")
    with ParquetRecorder(run / "measures") as recorder:
        for name in ("truth", "truth_pixels", "fact"):
            recorder.append(name, store.table(name))
        recorder.append("exposure_log", log)
    assert not match(Store(run)).reasons[0].startswith(b"not detected")
    theirs = scored(run, {n: ours[n] for n in ("visit", "ra", "dec", "psfFlux")}, tmp_path)
    assert set(theirs.exposures["status"]) == {b"done"}
    assert len(found(theirs)) > 0.9 * len(found(match(store)))


def test_the_report_says_what_is_not_known(night: Path, ours: Rows, tmp_path: Path) -> None:
    out = score_catalog(night, write_csv(tmp_path / "a.csv", {n: ours[n] for n in ("visit", "ra", "dec", "psfFlux")}),
                        tmp_path / "bare")
    report = gather(Store(out))
    keys = {figure.key for figure in report.figures}
    assert {"s50_raw", "false_alerts", "position"} <= keys
    assert not {"association", "ss_association", "dipole_points", "trail_length", "purity_alerts", "wcs", "cost",
                "position_pull_ra", "pull_mean_hosted"} & keys
    assert document(report)["association"] is None
    parts = {section.key: section for section in sections(report)}
    assert not {"association", "solarsystem", "shapes", "latency", "steps"} & set(parts)
    topics = {row[0] for row in parts["unknown"].tables[0].rows}
    assert {"association", "trails", "dipoles", "signal-to-noise", "work and latency", "calibration"} <= topics
    assert "no column diaObjectId" in render(out).read_text()
    counts = {row["name"].decode(): int(row["total"]) for row in report.rate.counts}
    assert counts == dict.fromkeys(("alerts", "DIASources", "detections before the filters"), len(ours["visit"]))


def test_what_the_columns_say_is_judged(night: Path, ours: Rows, tmp_path: Path) -> None:
    report = gather(Store(score_catalog(night, write_csv(tmp_path / "a.csv", ours), tmp_path / "all")))
    figures = {figure.key: figure.value for figure in report.figures}
    own = {figure.key: figure.value for figure in gather(Store(night)).figures}
    for key in ("association", "dipole_points", "position", "position_pull_ra", "purity_alerts", "false_alerts"):
        assert figures[key] == pytest.approx(own[key], nan_ok=True, rel=0.02), key
    assert "association" in {section.key for section in sections(report)}


def test_a_comparison_judges_by_what_both_sides_say(night: Path, ours: Rows, tmp_path: Path) -> None:
    own = of_run(Store(night), 3)
    bare = score_catalog(night, write_csv(tmp_path / "a.csv", {n: ours[n] for n in ("visit", "x", "y", "psfFlux")}),
                         tmp_path / "bare")
    full = score_catalog(night, write_csv(tmp_path / "b.csv", ours), tmp_path / "full")
    keys = {name: {metric.key for metric in metrics_of(own, of_run(Store(folder), 3))}
            for name, folder in (("bare", bare), ("full", full))}
    everything = {metric.key for metric in metrics_of(own, own)}
    for name in keys:
        assert {"completeness_raw_5.5_8", "false_alerts", "position_median", "magnitude_error"} <= keys[name]
        assert not {"clean", "cpu.total", "latency_median", "zeropoint_bias", "forced_bias", "template_depth",
                    "true_flux_bias", "searched_area", "packet_size"} & keys[name]
    assert not {"association_accuracy", "new_objects", "purity_alerts", "point_dipoles", "dia_dipoles", "trail_length",
                "solar_system_associated", "position_pull_variance"} & keys["bare"]
    assert {"association_accuracy", "new_objects", "purity_alerts", "point_dipoles", "dia_dipoles", "trail_length",
            "solar_system_associated", "position_pull_variance"} <= keys["full"]
    assert keys["full"] < everything
    log, theirs = Store(night).table("exposure_log"), Store(full).table("exposure_log")
    np.testing.assert_array_equal(theirs["n_new_objects"], log["n_new_objects"])


def test_our_own_alerts_laid_beside_the_run_they_are_of_change_nothing(night: Path, ours: Rows, tmp_path: Path) -> None:
    own = of_run(Store(night), 3)
    full = score_catalog(night, write_csv(tmp_path / "a.csv", ours), tmp_path / "full")
    found = compare(own, of_run(Store(full), 3), Rules(resamples=100))
    # what only the pixels know (what was detected and stopped by a filter) is lost, no alert is
    assert {flow.group for flow in found.flips.flows} <= {"raw_lost", "raw_gone"}
    changes = [j.difference for j in found.judged if j.metric.key.startswith("completeness_alerts")]
    assert {change for change in changes if np.isfinite(change)} == {0.0}


def test_no_step_of_ours_is_blamed_for_another_program(night: Path, ours: Rows, tmp_path: Path) -> None:
    own = of_run(Store(night), 3)
    rows = {n: ours[n][::2] for n in ("visit", "x", "y", "psfFlux")}
    found = compare(own, of_run(Store(score_catalog(night, write_csv(tmp_path / "a.csv", rows), tmp_path / "half")), 3),
                    Rules(resamples=100))
    groups = {flow.group for flow in found.flips.flows}
    assert "lost" in groups
    assert not {"object_wrong", "ss_lost", "object_right", "ss_gained"} & groups
    assert not [flow for flow in found.flips.flows if flow.step or flow.origin]
    assert found.blames == {}
    page = html(found)
    assert "another program" in page
    assert not [text for text in ("Step blamed", ">Speed<", "right objects", "cost_table") if text in page]
    assert "nan" not in re.sub(r"data:image[^\"]*", "", page)


def test_each_topic_takes_something_that_there_is(night: Path) -> None:
    """No pattern is out of date."""
    report, own = gather(Store(night)), of_run(Store(night), 3)
    names = {"figures": {f.key for f in report.figures}, "sections": {section.key for section in sections(report)},
             "metrics": {f"{m.section}/{m.key}" for m in (*METRICS, *metrics_of(own))}}
    assert not [pattern for topic in TOPICS.values() for kind in names for pattern in getattr(topic, kind)
                if not any(fnmatchcase(name, pattern) for name in names[kind])]


def test_a_run_of_our_own_has_nothing_unknown(night: Path) -> None:
    assert "unknown" not in {section.key for section in sections(gather(Store(night)))}


def test_an_empty_table_is_a_result(night: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("visit,ra,dec,psfFlux\n")
    out = score_catalog(night, tmp_path / "a.csv", tmp_path / "scored")
    matches = match(Store(out))
    assert found(matches) == set()
    assert matches.judged.sum() > 20
    assert matches.megapixels > 0
    assert "no detections: a result" in summary(out)
    assert render(out).is_file()
    assert json.loads((out / "report.json").read_text())["missed"]["not detected"] > 20


def test_the_command_scores_and_reports(night: Path, ours: Rows, tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "found.csv", {n: ours[n] for n in ("visit", "x", "y", "psfFlux")})
    assert main(["score", str(night), str(path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{len(ours['visit'])} detections of found.csv in 2 detector-visits, {len(ours['visit'])} of them "
                    "alerts", str(tmp_path / "found-scored" / "report.html")]
    assert main(["score", str(night), str(path)]) == 2      # the folder is taken
    assert "occupied" in capsys.readouterr().err


def test_a_file_of_several_runs_says_which_by_seed(night: Path, ours: Rows, tmp_path: Path) -> None:
    rows = {n: ours[n] for n in ("diaSourceId", "visit", "x", "y", "psfFlux")}
    folder = tmp_path / "both"
    write_csv(folder / "1.csv", rows, seed=3)
    write_csv(folder / "2.csv", {**rows, "x": rows["x"] + 50.0}, seed=4)   # the same ids and visits: another night
    matches = match(Store(score_catalog(night, folder, tmp_path / "scored")))
    assert found(matches) == found(match(Store(night)))
    assert len(matches.sources) == len(rows["visit"])
    (folder / "1.csv").unlink()
    with pytest.raises(InputError, match=r"both: no row has seed 3, that of .*run; the file has 4"):
        score_catalog(night, folder, tmp_path / "other")


# --- doubts ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("change", "doubt"), [
    (lambda rows, night: {}, ""),
    (lambda rows, night: {"x": rows["x"] + 1, "y": rows["y"] + 1}, r"\+1\.\d\d, \+0\.9\d|pixels count from 0"),
    (lambda rows, night: {"psfFlux": rows["psfFlux"] / 1000}, r"Fluxes are 0\.00\d+ of the true ones"),
    (lambda rows, night: {"psfFlux": -rows["psfFlux"]}, "have the other sign"),
    (lambda rows, night: pointed(rows, night), r"fit the pointing WCS of exposures/"),
    (lambda rows, night: {"x": np.where(np.arange(len(rows["x"])) < 3, -40.0, rows["x"])},
     "3 of .* positions lie off their detector")])
def test_wrong_units_and_conventions_are_doubted(change: Callable[[Rows, Path], Rows], doubt: str, night: Path,
                                                 ours: Rows, tmp_path: Path) -> None:
    rows = {n: ours[n] for n in ("visit", "x", "y", "psfFlux")} | change(ours, night)
    if "ra" in rows:
        del rows["x"], rows["y"]
    out = score_catalog(night, write_csv(tmp_path / "a.csv", rows), tmp_path / "scored")
    doubts = summary(out).splitlines()[1:]
    assert len(doubts) == bool(doubt)
    if doubt:
        assert re.search(doubt, doubts[0]), doubts


def pointed(rows: Rows, night: Path) -> Rows:
    """Positions by the WCS that the exposures arrived with."""
    here = observatory(night)
    ra, dec = np.zeros(len(rows["x"])), np.zeros(len(rows["x"]))
    for visit in here.visits:
        of = rows["visit"] == visit.visit
        wcs = pointing_wcs(here.config.camera, here.facts(visit, 94).wcs, visit, 94, here.seed)
        ra[of], dec[of] = wcs.sky(rows["x"][of], rows["y"][of])
    return {"ra": ra, "dec": dec}


# --- what is refused -------------------------------------------------------------------------------------------------

V = 2027082100001     # the first visit of the night

REFUSED = {
    "no positions": (f"visit,flux\n{V},3\n", r"a\.csv: no position columns, ra and dec \[deg\] or x and y \[pixel\]"),
    "half a position": (f"visit,ra\n{V},3\n", r"a\.csv: column ra without dec"),
    "no visit": ("ra,dec\n3,3\n", r"a\.csv: no column visit; it has ra, dec"),
    "nothing known": ("a,b\n3,3\n", r"none of its columns \(a, b\) is one of the answer sheet's"),
    "no header": (f"{V},330.0,-12.0\n", r"none of its columns"),
    "a missing visit": (f"visit,x,y\n{V},3,3\n,4,4\n", r"row 2: no visit"),
    "an unknown visit": (f"visit,x,y\n{V},3,3\n{V + 7},4,4\n",
                         rf"row 2: visit {V + 7}, detector 94 is not in .*run, which has visits {V} to {V + 1} \(2\)"),
    "an unknown detector": (f"visit,detector,x,y\n{V},12,4,4\n", rf"row 1: visit {V}, detector 12 is not in"),
    "NaN": (f"visit,x,y\n{V},3,3\n{V},nan,4\n", r"row 2: x is nan, a finite position expected \(1 such rows\)"),
    "a missing position": (f"visit,ra,dec\n{V},330,-12\n{V},330,\n", r"row 2: dec is nan"),
    "infinite": (f"visit,x,y\n{V},3,inf\n", r"row 1: y is inf"),
    "words": (f"visit,x,y\n{V},3,3\n{V},here,4\n", r"row 2: x 'here' is not a number"),
    "a fraction of a visit": (f"visit,x,y\n{V}.5,3,4\n", rf"row 1: visit '{V}\.5' is not an integer"),
    "beyond the sky": (f"visit,ra,dec\n{V},330,-12\n{V},330,-102\n", r"row 2: dec is -102, degrees from -90 to 90"),
    "radians": (f"visit,ra,dec\n{V},5.7596,-0.20944\n", r"ra and dec look like radians: row 1 has 5\.759600, -0\.2094"),
    "hours": (f"visit,ra,dec\n{V},22.0,-12.0\n", r"ra and dec look like hours and degrees"),
    "another field": (f"visit,ra,dec\n{V},130.0,22.0\n",
                      r"no position lies on its detector: row 1 has ra 130\.00000, dec 22\.00000, visit \d+ looks at "
                      r"329\.9"),
    "another detector's pixels": (f"visit,x,y\n{V},3000,2500\n", r"row 1 has x 3000, y 2500, detectors have 440 x 440"),
    "ids again": (f"visit,x,y,diaSourceId\n{V},3,3,17\n{V},4,4,18\n{V},5,5,17\n",
                  r"row 3: diaSourceId 17 is that of row 1 too, each id once expected \(1 are there again\)"),
    "one column twice": (f"visit,x,y,flux,psfFlux\n{V},3,3,1,1\n", r"columns \w+ and \w+ are the same; one expected"),
    "a third sign": (f"visit,x,y,sign\n{V},3,3,0\n", r"row 1: sign must be 1 or -1, got 0"),
    "half an alert": (f"visit,x,y,alert\n{V},3,3,0.5\n", r"row 1: alert must be true or false"),
    "empty": ("", r"the file is empty")}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_answer_is_refused_in_one_line(case: str, night: Path, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    text, expected = REFUSED[case]
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=expected):
        score_catalog(night, tmp_path / "a.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main(["score", str(night), str(tmp_path / "a.csv")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("alert-twin: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("name", "content", "expected"), [
    ("a.parquet", b"PAR1 and no more", "not readable as Parquet"),
    ("a.fits", b"SIMPLE  = and no more", "not a readable FITS table"),
    ("a.avro", b"Obj\x01 and no more", "not a readable Avro file"),
    ("a.avro", b"\x00\x00\x00\x04\x4d and no more", "not a readable alert packet"),
    ("a.csv.gz", b"\x1f\x8b\x08\x00", "compressed"),
    ("a.csv", b"visit,x,y\n\xff\xfe\xfd,3,4\n", "not readable as CSV|is not a|utf")])
def test_a_broken_file_is_refused_in_one_line(name: str, content: bytes, expected: str, night: Path,
                                              tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=expected) as caught:
        score_catalog(night, tmp_path / name, tmp_path / "out")
    assert name in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_file_or_folder_that_is_not_there_is_refused(night: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"b\.csv: no such file"):
        score_catalog(night, tmp_path / "b.csv", tmp_path / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none: no files in this folder"):
        score_catalog(night, tmp_path / "none", tmp_path / "out")


def test_columns_in_other_units_are_converted_or_refused(night: Path, ours: Rows, tmp_path: Path) -> None:
    """FITS says its units."""
    def table(path: Path, unit: str, factor: float, flux_unit: str) -> Path:
        columns = [fits.Column("visit", "K", array=ours["visit"]),
                   fits.Column("ra", "D", unit=unit, array=ours["ra"] * factor),
                   fits.Column("dec", "D", unit=unit, array=ours["dec"] * factor),
                   fits.Column("flux", "D", unit=flux_unit, array=ours["psfFlux"] / 1000)]
        fits.BinTableHDU.from_columns(columns).writeto(path)
        return path

    out = score_catalog(night, table(tmp_path / "a.fits", "rad", np.pi / 180, "uJy"), tmp_path / "scored")
    assert found(match(Store(out))) == found(match(Store(night)))
    assert summary(out).count("\n") == 0
    with pytest.raises(InputError, match=r"b\.fits: column flux is in 'adu', nJy expected"):
        read_answers(table(tmp_path / "b.fits", "deg", 1.0, "adu"))


def test_what_is_no_simulated_run_of_pixels_is_refused(night: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"visit,x,y\n{V},3,3\n")
    with pytest.raises(InputError, match=r"no run folder, it has no measures/"):
        score_catalog(tmp_path, tmp_path / "a.csv", tmp_path / "out")
    rows = blank("exposure_log", 1)
    rows["fidelity"] = b"pixels"
    with ParquetRecorder(tmp_path / "run" / "measures") as recorder:
        recorder.append("exposure_log", rows)
    with pytest.raises(InputError, match=r"not a simulated run of pixels, kind 'unknown'"):
        score_catalog(tmp_path / "run", tmp_path / "a.csv", tmp_path / "out")
    with pytest.raises(InputError, match="the run folder is occupied"):
        score_catalog(night, tmp_path / "a.csv", tmp_path / "run")


# --- the worked example ----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def answered(night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's answers on the small night, run as its reader would."""
    folder = tmp_path_factory.mktemp("example")
    export_run(night, folder / "export")
    subprocess.run([sys.executable, EXAMPLE, folder / "export", folder / "answers.csv"], check=True, cwd=folder)
    return folder / "answers.csv"


def bright(matches: Matches) -> np.ndarray:
    """Judged transients that are bright and alone."""
    truth = matches.truth
    return np.asarray(matches.judged & truth["isolated"] & (truth["kind"] == b"transient")
                      & (np.abs(truth["snr"]) > 12))


def test_the_example_finds_bright_transients(night: Path, answered: Path, tmp_path: Path) -> None:
    out = score_catalog(night, answered, tmp_path / "scored")
    matches = match(Store(out))
    sample = bright(matches)
    assert sample.sum() > 10
    assert matches.alerted[sample].mean() > 0.9
    real = matches.partner[matches.sources["alert"]] >= 0
    assert real.mean() > 0.8
    assert summary(out).count("\n") == 0      # no doubts about its units
    ratio = matches.sources["psfFlux"][matches.found[sample & matches.alerted]] / matches.truth["flux"][
        sample & matches.alerted]
    assert abs(np.median(ratio) - 1) < 0.1


def test_the_examples_positions_shuffled_find_none(night: Path, answered: Path, tmp_path: Path) -> None:
    with answered.open(newline="") as file:
        rows = list(csv.DictReader(file))
    order = np.random.default_rng(2).permutation(len(rows))
    moved = {name: [row[name] for row in rows] for name in ("visit", "psfFlux", "snr")}
    moved["x"], moved["y"] = [rows[i]["x"] for i in order], [row["y"] for row in rows]
    matches = scored(night, {name: np.array(values, float if name != "visit" else int)
                             for name, values in moved.items()}, tmp_path)
    assert matches.alerted[bright(matches)].mean() < 0.1


def test_the_example_is_short_and_needs_no_more_than_it_says() -> None:
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) <= 80
    names = {alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert names == {"csv", "sys", "pathlib", "numpy", "sep", "astropy.io"}


def test_each_column_of_the_sheet_has_one_name() -> None:
    names = [name.lower() for column in SHEET for name in (column.name, *column.aliases)]
    assert len(names) == len(set(names))
