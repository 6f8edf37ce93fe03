"""A night written as FITS files, processed from those files alone, makes the same packets but for clock columns."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from pipeline.alerts import read_packet, read_packets
from pipeline.errors import InputError
from reports.store import Store
from schemas.measures import TRUTH
from twin.bundle import write_bundle
from twin.cli import main
from twin.night import run_night
from twin.process import process_files

from .conftest import SMALL, small

CLOCK = {"timeProcessedMjdTai", "validityStartMjdTai"}


def without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_clock(v) for key, v in value.items() if key not in CLOCK}
    return [without_clock(v) for v in value] if isinstance(value, list) else value


def packets(run: Path) -> dict[int, Any]:
    return {p["diaSourceId"]: without_clock(p) for p in map(read_packet, read_packets(run / "alerts"))}


@pytest.fixture(scope="module")
def slow_night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four visits, each done before the next begins: production has no other order."""
    simulation: dict[str, Any] = dict(SMALL["simulation"])  # type: ignore[call-overload]  # a plain mapping
    simulation["cadence"] = {**simulation["cadence"], "pairs": 2}
    folder = tmp_path_factory.mktemp("slow") / "run"
    run_night(small(simulation=simulation, platform={"workers": 1, "lead_s": 0.0, "cost_scale": 0.001}), folder)
    return folder


@pytest.fixture(scope="module")
def bundle(slow_night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "bundle"
    write_bundle(slow_night, out, after=2)
    return out


def test_twin_and_production_emit_the_same_packets(slow_night: Path, bundle: Path, tmp_path: Path) -> None:
    process_files([bundle / "exposures"], tmp_path / "run", config=bundle / "site.toml")
    ours, theirs = packets(slow_night), packets(tmp_path / "run")
    assert len(theirs) > 20
    for key, packet in theirs.items():
        assert packet == ours[key], key
    later = {f.stem.partition("_")[0] for f in (bundle / "exposures").iterdir()}
    assert len(theirs) == sum(str(p["diaSource"]["visit"]) in later for p in ours.values())
    assert any(p["prvDiaSources"] for p in theirs.values())


def test_production_catches_up_with_files_that_the_night_did_not_process(bundle: Path, tmp_path: Path) -> None:
    files, site = sorted((bundle / "exposures").iterdir()), tmp_path / "site.toml"
    assert len(files) == 2
    shutil.copytree(bundle, tmp_path / "bundle")
    site = tmp_path / "bundle" / "site.toml"
    site.write_text(site.read_text().replace("keep = false", "keep = true"))
    process_files(files, tmp_path / "whole", config=site)
    process_files(files[1:], tmp_path / "run", config=site)
    sent = {path.name: path.read_bytes() for path in (tmp_path / "run" / "alerts").iterdir()}
    assert main(["batch", str(tmp_path / "run"), "--config", str(site), "--science", str(bundle / "exposures")]) == 0
    whole, after = Store(tmp_path / "whole"), Store(tmp_path / "run" / "batch")
    columns = ["diaSourceId", "visit", "psfFlux"]
    np.testing.assert_array_equal(*(np.sort(store.table("DiaSource")[columns], order="diaSourceId")
                                    for store in (whole, after)))
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "alerts").iterdir()} == sent
    assert after.table("exposure_log")["status"].tolist() == [b"done", b"done"]
    assert len(list((tmp_path / "run" / "kept").glob("*.npz"))) == 2
    summary = json.loads((tmp_path / "run" / "batch" / "summary.json").read_text())
    assert (summary["done"], summary["caught_up"]) == (2, 1)


def test_packets_differ_when_the_files_do(slow_night: Path, bundle: Path, tmp_path: Path) -> None:
    """The comparison can fail: without the state, histories are missing."""
    altered = tmp_path / "bundle"
    shutil.copytree(bundle, altered)
    site = altered / "site.toml"
    site.write_text(site.read_text().replace('state = "state"', 'state = ""'))
    process_files([altered / "exposures"], tmp_path / "run", config=site)
    ours, theirs = packets(slow_night), packets(tmp_path / "run")
    assert sum(packet != ours.get(key) for key, packet in theirs.items()) > 0.5 * len(theirs)


def test_no_truth_is_in_the_bundle(bundle: Path) -> None:
    private = set(TRUTH.names or ()) - {"visit", "detector", "ra", "dec", "x", "y", "flux", "snr", "ssObjectId"}
    for path in bundle.rglob("*.fits"):
        with fits.open(path) as hdus:
            columns = {name for hdu in hdus if isinstance(hdu, fits.BinTableHDU) for name in hdu.columns.names}
            keys = {key.lower() for hdu in hdus for key in hdu.header}
        assert not columns & private, path.name
        forbidden = ("true", "psf") if path.parent.name == "exposures" else ("true",)
        assert not [key for key in keys if any(word in key for word in forbidden)], path.name


def test_a_bundle_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a finished run of pixels: it has no scenario\.toml"):
        write_bundle(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_files_of_one_visit_are_refused_and_nothing_is_written(bundle: Path, tmp_path: Path) -> None:
    first = min((bundle / "exposures").iterdir())
    again = tmp_path / "again.fits"
    shutil.copyfile(first, again)
    with pytest.raises(InputError, match="is also in"):
        process_files([first, again], tmp_path / "run", config=bundle / "site.toml")
    assert not (tmp_path / "run").exists()


def test_an_exposure_beside_the_template_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.fits"
    shutil.copyfile(min((bundle / "exposures").iterdir()), path)
    with fits.open(path, mode="update") as hdus:
        hdus["IMAGE"].header["CRVAL2"] += 5.0
    with pytest.raises(InputError, match="no overlap with the template"):
        process_files([path], tmp_path / "run", config=bundle / "site.toml")
    assert not (tmp_path / "run").exists()


def test_injected_sources_are_truth_in_production(bundle: Path, tmp_path: Path) -> None:
    from reports.store import Store

    site = bundle / "site.toml"
    process_files([bundle / "exposures"], tmp_path / "run", config=site, inject=9, seed=4)
    truth = Store(tmp_path / "run").table("truth")
    assert len(truth) == 18
    assert set(truth["kind"]) == {b"injected"}
    pull = (truth["forced_flux"] - truth["flux"]) / truth["forced_flux_err"]
    assert abs(np.median(pull)) < 4 * 1.25 / np.sqrt(18)


def test_an_injected_run_refuses_a_production_sink(bundle: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text((bundle / "site.toml").read_text() + '\n[inject]\ncount = 5\n')
    sink = 'sink = "kafka://localhost:9092/alerts"'
    text = site.read_text().replace('references = "', f'{sink}\nreferences = "{bundle}/')
    for name in ("ephemerides", "satellites"):
        text = text.replace(f'{name} = "', f'{name} = "{bundle}/')
    site.write_text(text.replace('state = "state"', 'state = ""').replace('"templates/', f'"{bundle}/templates/'))
    with pytest.raises(InputError, match="a run with injected sources writes to its own folder only"):
        process_files([bundle / "exposures"], tmp_path / "run", config=site)
    assert not (tmp_path / "run").exists()
