"""A small night, end to end."""

import io
from pathlib import Path

import fastavro
import numpy as np
import pytest
from astropy.io import fits

from pipeline.errors import InputError
from pipeline.ingest import read_template
from reports.store import Store
from schemas.mask import UNUSABLE
from twin.folders import claim
from twin.night import run_night
from twin.scenario import read_scenario

from .conftest import small


def packets(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "alerts").iterdir())}


def test_every_detector_visit_is_done_and_alerts_are_in_the_folder(night: Path) -> None:
    log = Store(night).table("exposure_log")
    assert log["status"].tolist() == [b"done", b"done"]
    assert (log["n_alerts"] > 10).all()
    published = Store(night).table("publication")
    assert len(published) == log["n_alerts"].sum()
    assert set(published["diaSourceId"]) <= set(Store(night).table("DiaSource")["diaSourceId"])


def test_strong_true_sources_are_found_where_they_are(night: Path) -> None:
    store = Store(night)
    truth, found = store.table("truth"), store.table("measurement")
    strong = (np.abs(truth["snr"]) > 12) & (truth["input_mask"] == 0) & (truth["kind"] == b"transient")
    assert strong.sum() > 10
    near = [np.min(np.hypot(found["x"] - t["x"], found["y"] - t["y"])[found["visit"] == t["visit"]])
            for t in truth[strong]]
    assert np.mean(np.array(near) < 1.5) > 0.9


def test_pixels_at_truth_positions_are_inspected(night: Path) -> None:
    truth = Store(night).table("truth")
    point = (truth["kind"] == b"transient") & (truth["input_mask"] == 0) & truth["isolated"]
    point &= (truth["mask_at"] & UNUSABLE) == 0
    strong = point & (np.abs(truth["snr"]) > 15)
    assert np.median(truth["significance_at"][strong] / truth["snr"][strong]) == pytest.approx(1.0, abs=0.15)
    pull = (truth["forced_flux"] - truth["flux"])[point] / truth["forced_flux_err"][point]
    assert abs(np.median(pull)) < 4 * 1.25 / np.sqrt(point.sum())


def test_the_truth_is_not_in_the_packets_and_the_pixels_are_let_go(night: Path) -> None:
    assert not (night / "scratch").exists()
    for blob in packets(night).values():
        for record in fastavro.reader(io.BytesIO(blob)) if blob[:3] == b"Obj" else ():
            assert "truth" not in str(record.keys())


def test_stamps_follow_their_table(night: Path) -> None:
    store = Store(night)
    index = store.table("stamp")
    log = store.table("exposure_log")
    for visit, detector in zip(log["visit"], log["detector"], strict=True):
        rows = index[index["visit"] == visit]
        stamps = store.stamps(visit, detector)
        assert stamps.shape == (len(rows), 3, 51, 51)
        truth = store.table("truth")
        for row, stamp in zip(rows, stamps, strict=True):
            if row["kind"] == b"truth":
                source = truth[(truth["visit"] == visit) & (truth["truthId"] == row["truthId"])][0]
                if source["snr"] > 30 and source["trail_length"] < 2 and source["input_mask"] == 0:
                    assert np.nanargmax(stamp[2, 22:29, 22:29]) in range(8, 41)


def test_steps_are_costed_and_measured(night: Path) -> None:
    steps = Store(night).table("step")
    names = {name.decode() for name in steps["name"]}
    assert {"calibrate", "warp", "subtract", "detect", "measure", "associate", "forced", "package", "save",
            "send"} <= names
    assert (steps["duration_s"] >= 0).all()
    assert (steps["cpu_s"] >= 0).all()
    assert np.isfinite(steps["peak_mb"][steps["name"] == b"subtract"]).all()


def test_latency_is_the_sum_of_its_steps_when_nothing_queues(night: Path) -> None:
    store = Store(night)
    steps, log, published = store.table("step"), store.table("exposure_log"), store.table("publication")
    first = log["visit"][0]
    mine = steps[(steps["visit"] == first) & ~np.isin(steps["name"], [b"objects", b"history", b"ephemerides",
                                                                    b"mark_sent"])]
    platform = read_scenario(night / "scenario.toml").platform
    waited = (published["sent_mjd_tai"][published["visit"] == first].max() - log["readout_end_mjd_tai"][0]) * 86400
    assert waited == pytest.approx(platform.transfer_s + mine["duration_s"].sum(), abs=0.01)


def test_kept_images_have_wcs_mask_variance_and_psf(night: Path) -> None:
    files = sorted((night / "images").iterdir())
    assert len(files) == 6
    for path in files:
        plane = read_template(path)
        assert plane.shape == (440, 440)
        with fits.open(path) as hdus:
            assert {"IMAGE", "VARIANCE", "MASK", "PSF"} <= {hdu.name for hdu in hdus}
            assert hdus["IMAGE"].header["CTYPE1"] == "RA---TAN"
        assert plane.psf.central.sum() == pytest.approx(1.0)


def test_one_process_and_two_write_the_same_bytes(night: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    run_night(read_scenario(night / "scenario.toml"), again, processes=2)
    assert packets(again) == packets(night)
    assert len(packets(night)) == 2


def test_an_occupied_folder_is_refused_before_anything_is_written(night: Path, tmp_path: Path) -> None:
    before = sorted(night.iterdir())
    with pytest.raises(InputError, match="occupied"):
        run_night(small(), night)
    assert sorted(night.iterdir()) == before
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="occupied"):
        claim(blocked)
    with pytest.raises(InputError, match="cannot be written"):
        claim(blocked / "below")


def test_an_unknown_cost_table_is_refused_before_the_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no cost table 'nowhere\.toml'"):
        run_night(small(platform={"costs": "nowhere.toml"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_on_the_way_leaves_no_folder(tmp_path: Path) -> None:
    costs = tmp_path / "few.toml"
    costs.write_text('machine = "none"\ndate = "never"\n[steps.objects]\na = 1.0\nb = 0.0\n')
    with pytest.raises(InputError, match=r"few\.toml has no cost for Step 'history'"):
        run_night(small(platform={"costs": "few.toml"}), tmp_path / "run", beside=tmp_path)
    assert not (tmp_path / "run").exists()


def test_visits_whose_time_is_over_leave_no_trace(tmp_path: Path) -> None:
    slow = {"timeout_s": 80.0, "cost_scale": 500.0}      # lead 20, exposure 30, readout and transfer 7
    run_night(small(platform=slow), tmp_path / "run")
    store = Store(tmp_path / "run")
    log = store.table("exposure_log")
    assert log["status"].tolist() == [b"timeout", b"timeout"]
    assert len(store.optional("DiaSource")) == len(store.optional("publication")) == 0
    assert not (tmp_path / "run" / "scratch").exists()
