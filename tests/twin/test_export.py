"""A run as files for any program: pairs of images as the pipeline itself subtracts them, a page, and no truth."""

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline import service
from pipeline.errors import AlgorithmError, InputError
from pipeline.ingest import HeaderConfig, read_template
from reports.store import Store
from schemas.mask import PLANES
from schemas.measures import TRUTH
from schemas.wcs import Wcs
from twin import export
from twin.answers import SHEET
from twin.bundle import bundled, fill
from twin.export import export_run
from twin.halves import observatory

PRIVATE = set(TRUTH.names or ()) - {"visit", "detector", "ra", "dec", "x", "y", "flux", "snr", "ssObjectId"}


@pytest.fixture(scope="module")
def exported(night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "export"
    said = export_run(night, folder)
    assert said.startswith("2 detector-visits, 2 with a pair of images")
    return folder


def test_pairs_are_what_the_pipeline_itself_subtracts(night: Path, exported: Path) -> None:
    """The night kept its calibrated images and warped templates."""
    for path in sorted((exported / "pairs").iterdir()):
        with fits.open(path) as pair:
            for name, kept in (("SCIENCE", "calibrated"), ("TEMPLATE", "template")):
                ours = read_template(night / "images" / f"{path.stem}_{kept}.fits")
                np.testing.assert_array_equal(pair[name].data, ours.image)
                np.testing.assert_array_equal(pair[f"{name}_VARIANCE"].data, ours.variance)
                np.testing.assert_array_equal(pair[f"{name}_MASK"].data, ours.mask)
                psf = pair[f"{name}_PSF"].data
                np.testing.assert_allclose(psf, ours.psf.central, atol=1e-6)
                assert abs(psf.sum() - 1) < 1e-3
                assert np.unravel_index(psf.argmax(), psf.shape) == (len(psf) // 2, len(psf) // 2)
                place = Wcs.from_header(pair[name].header).pixels(*ours.wcs.sky(10.0, 400.0))
                np.testing.assert_allclose(place, (10.0, 400.0), atol=1e-5)


def test_pairs_say_what_they_are_of(night: Path, exported: Path) -> None:
    log = Store(night).table("exposure_log")
    for path, row in zip(sorted((exported / "pairs").iterdir()), log[np.argsort(log["visit"])], strict=True):
        header = fits.getheader(path, "SCIENCE")
        assert (header["VISIT"], header["DETECTOR"]) == (row["visit"], row["detector"])
        assert header["BAND"] == row["band"].decode()
        assert abs(header["MJD-MID"] - row["midpointMjdTai"]) < 1e-9


def test_the_folder_is_one_that_process_reads(exported: Path) -> None:
    site, folder = service.read_site(exported / "site.toml")
    exposures = service.read_exposures(sorted((exported / "exposures").iterdir()), HeaderConfig())
    world = service.read_world(site, folder)
    service.check_overlap(exposures, world, site)
    assert len(exposures) == 2
    assert len(world.references) > 20
    assert not (exported / "state").exists()


def test_what_a_run_found_in_a_cache_is_not_needed(night: Path, exported: Path, tmp_path: Path) -> None:
    """Such a run's folder has no masks of earlier exposures."""
    run = tmp_path / "run"
    (run / "templates").mkdir(parents=True)
    for name in ("scenario.toml", "prompt.duckdb", "templates/r.fits"):
        (run / name).symlink_to(night / name)
    fill(run, tmp_path, bundled(run)[:1])
    path, = (tmp_path / "exposures").iterdir()
    assert path.read_bytes() == (exported / "exposures" / path.name).read_bytes()


def test_the_page_and_the_sheet_name_everything(exported: Path) -> None:
    page = (exported / "README.md").read_text()
    for path in set(exported.iterdir()) - {exported / "README.md"}:
        assert path.name in page, path.name
    assert not [column.name for column in SHEET if f"| {column.name}" not in page]
    assert not [plane for plane in PLANES if f"| {plane} | {PLANES[plane]} |" not in page]
    with (exported / "answer_sheet.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["column"].partition(" ")[0] for row in rows] == [column.name for column in SHEET]
    assert {row["needed"] for row in rows} == {"required", "one pair", "optional"}
    assert not re.findall(r"[{}]", page)
    for visit in {path.stem for path in (exported / "pairs").iterdir()}:
        assert f"| {visit.replace('_', ' | ')} |" in page


# --- no truth --------------------------------------------------------------------------------------------------------

def leaks(folder: Path, run: Path) -> list[str]:
    """Whatever in the files equals, or is named as, what only truth knows."""
    store = Store(run)
    truth, log = store.table("truth"), store.table("exposure_log")
    secret = np.concatenate([truth[name] for name in ("ra", "dec", "x", "y", "flux", "science_flux", "snr")]
                            + [log[name] for name in log.dtype.names or () if name.startswith("true_")]).astype(float)
    secret = np.sort(secret[np.isfinite(secret) & (np.abs(secret) > 1e-3)])
    out = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.suffix == ".fits":
            out += [f"{path.name}: {what}" for what in _fits_leaks(path, secret, run)]
        else:
            found = np.array([float(text) for text in re.findall(r"-?\d+\.\d{4,}", path.read_text())])
            out += [f"{path.name}: {value}" for value in found[_among(found, secret)]]
    return out


def _fits_leaks(path: Path, secret: np.ndarray, run: Path) -> Iterator[str]:
    here = observatory(run)
    with fits.open(path) as hdus:
        for hdu in hdus:
            values = np.array([v for v in hdu.header.values() if isinstance(v, float)])
            yield from (f"header value {value}" for value in values[_among(values, secret)])
            yield from (f"keyword {key}" for key in hdu.header if "true" in key.lower() or "truth" in key.lower())
            if isinstance(hdu, fits.BinTableHDU):
                yield from (f"column {name}" for name in hdu.columns.names if name in PRIVATE)
                for name in {"ra", "dec"} & set(hdu.columns.names):
                    yield from (f"{name} {value}" for value in hdu.data[name][_among(hdu.data[name], secret, 1e-12)])
            if "CRPIX1" in hdu.header and "VISIT" in hdu.header:
                visit = next(v for v in here.visits if v.visit == hdu.header["VISIT"])
                true = here.facts(visit, hdu.header["DETECTOR"]).wcs
                x, y = true.pixels(*Wcs.from_header(hdu.header).sky(np.array([0.0, 400.0]), np.array([400.0, 0.0])))
                if np.hypot(x - [0, 400], y - [400, 0]).max() < 1e-3:
                    yield "true WCS"


def _among(values: np.ndarray, secret: np.ndarray, tolerance: float = 1e-7) -> np.ndarray:
    """Which values equal a secret one but for rounding."""
    values = np.asarray(values, float)
    near = secret[np.clip(np.searchsorted(secret, values) + np.array([[-1], [0]]), 0, len(secret) - 1)]
    return np.asarray(np.any(np.abs(near - values) <= tolerance * np.abs(values), axis=0))


def test_no_truth_is_in_the_export(night: Path, exported: Path) -> None:
    assert leaks(exported, night) == []


@pytest.mark.parametrize("leak", ["wcs", "zeropoint", "column", "position", "page"])
def test_the_search_for_truth_can_find_it(leak: str, night: Path, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    store = Store(night)
    truth, log = store.table("truth"), store.table("exposure_log")
    pair = min((folder / "pairs").iterdir())
    if leak == "page":
        (folder / "README.md").write_text(f"a transient at {truth['ra'][0]:.9f}")
    elif leak in ("column", "position"):
        rows = truth[["kind", "ra"]] if leak == "column" else truth[["ra", "dec"]]
        fits.BinTableHDU(np.array(rows.tolist(), [(n, rows.dtype[n]) for n in rows.dtype.names])).writeto(
            folder / "more.fits")
    else:
        with fits.open(pair, mode="update") as hdus:
            header = hdus["SCIENCE"].header
            row = log[log["visit"] == header["VISIT"]][0]
            if leak == "zeropoint":
                header["ZEROPNT"] = float(row["true_zeropoint"])
            else:
                here = observatory(night)
                visit = next(v for v in here.visits if v.visit == row["visit"])
                header.update(here.facts(visit, int(row["detector"])).wcs.header())
    assert leaks(folder, night)


# --- what cannot be exported -----------------------------------------------------------------------------------------

def test_an_exposure_that_cannot_be_calibrated_has_no_pair(night: Path, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise AlgorithmError("PSF: 2 stars, 5 needed")

    monkeypatch.setattr(export, "calibrate", fails)
    assert export_run(night, tmp_path / "export").startswith("2 detector-visits, 0 with a pair")
    assert list((tmp_path / "export" / "pairs").iterdir()) == []
    assert (tmp_path / "export" / "README.md").read_text().count("PSF: 2 stars, 5 needed") == 2


def test_a_folder_that_is_no_run_or_not_free_is_refused(night: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a finished run of pixels: it has no scenario\.toml"):
        export_run(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="the run folder is occupied"):
        export_run(night, exported)


def test_nothing_is_left_of_an_export_that_fails(night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_pair", full)
    with pytest.raises(OSError, match="No space left"):
        export_run(night, tmp_path / "out")
    assert not (tmp_path / "out").exists()
