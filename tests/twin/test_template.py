"""`alert-twin template`: exposures in, a template file out that `process` reads; wrong input is one line."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline.ingest import is_template, read_template, write_exposure, write_table
from pipeline.make_template import Source, make_template
from pipeline.pixel_config import CalibrateConfig, TemplateConfig
from pipeline.template import coadd
from schemas import mask as planes
from schemas.exposure import Exposure
from schemas.wcs import Wcs
from tests.pipeline import fields
from twin.cli import main

SHAPE = (360, 400)
WIDTHS = (3.4, 3.9, 3.5, 4.4, 3.6, 3.7, 3.8)


def one(i: int, **options: object) -> fields.Field:
    wcs = Wcs.tangent(150.0 + 4e-4 * i, -30.0 - 3e-4 * i, SHAPE, rotation=0.5 * i)
    return fields.make(**{"seed": i, "shape": SHAPE, "wcs": wcs, "fwhm": WIDTHS[i % 7], "visit": 2026010100100 + i,  # type: ignore[arg-type]
                          "density": 900.0, "mjd_tai": 61041.0 + i, **options})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven exposures of one field, a config with references, and one exposure of another band."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "r").mkdir()
    for i in range(7):
        field = one(i)
        write_exposure(folder / "r" / f"{i}.fits", field.exposure)
    write_table(folder / "references.fits", field.references)
    (folder / "site.toml").write_text('references = "references.fits"')
    write_exposure(folder / "g.fits", one(7, band="g").exposure)
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["template", *(str(a) for a in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_files_become_a_template_that_process_takes(files: Path, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "template.fits"
    assert main(["template", str(files / "r"), "--config", str(files / "site.toml"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "6 visits in r" in said
    assert "1 not chosen" in said
    assert [f.name for f in out.parent.iterdir()] == ["template.fits"]
    assert is_template(out)
    template = read_template(out)
    assert 2026010100103 not in template.inputs       # the widest of seven
    assert template.inputs[0] == 2026010100100        # the sharpest first
    with fits.open(out) as hdus:
        depth = hdus["DEPTH"].data
    covered = (template.mask & planes.NO_DATA) == 0
    np.testing.assert_array_equal(np.isfinite(depth), covered)
    np.testing.assert_array_equal(template.n_inputs[~covered], 0)
    deep, shallow = (np.median(depth[template.n_inputs == n]) for n in (6, 3))
    assert deep - shallow == pytest.approx(1.25 * np.log10(2), abs=0.1)      # noise falls as the root of the number
    assert main(["process", str(files / "r" / "3.fits"), "--template", str(out), "--config", str(files / "site.toml"),
                 "--out", str(tmp_path / "run")]) == 0
    assert "1 of 1 exposures processed" in capsys.readouterr().out


def test_the_grid_of_an_exposure_and_the_incremental_choice_can_be_asked_for(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "template.fits"
    assert main(["template", str(files / "r"), "--config", str(files / "site.toml"), "--out", str(out), "--like",
                 str(files / "r" / "2.fits"), "--incremental", "--band", "r"]) == 0
    template = read_template(out)
    assert template.shape == SHAPE
    assert len(template.inputs) == 7        # all are clear and sharp enough, and fewer than twelve


def test_wrong_input_is_one_line_and_leaves_nothing(files: Path, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    out, nowhere = tmp_path / "t.fits", tmp_path / "nowhere.fits"
    assert f"{nowhere}: no such file" in refused(capsys, nowhere, "--out", out)
    message = refused(capsys, files / "g.fits", files / "r", "--out", out)
    assert "0.fits: band r" in message
    assert "choose it with --band" in message
    message = refused(capsys, files / "r", "--out", out, "--band", "i")
    assert "band i: none of 7 exposures has it; there are r" in message
    bad = tmp_path / "bad.fits"
    bad.write_bytes(b"SIMPLE  =                    T" + b" " * 50)
    assert f"{bad}: not a readable FITS file" in refused(capsys, files / "r" / "0.fits", bad, "--out", out)
    far = tmp_path / "far.fits"
    write_exposure(far, one(0, wcs=Wcs.tangent(151.5, -30.0, SHAPE), center=(151.5, -30.0)).exposure)
    assert "spread over" in refused(capsys, files / "r" / "0.fits", far, "--out", out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.fits", "far.fits"]
    out.write_text("kept")
    assert f"{out}: exists" in refused(capsys, files / "r", "--out", out)
    assert out.read_text() == "kept"


def test_an_exposure_that_cannot_be_calibrated_is_left_out_by_name(files: Path, tmp_path: Path) -> None:
    def blank() -> Exposure:
        exposure = one(1).exposure
        return replace(exposure, image=np.full_like(exposure.image, 5.0))

    reference = one(0).references
    sources = [Source(f"visit {i}", lambda i=i: one(i).exposure) for i in range(3)] + [Source("a blank one", blank)]
    made = make_template(sources, lambda exposure: reference, tmp_path, CalibrateConfig(), TemplateConfig())
    assert made.used == ("visit 0", "visit 2", "visit 1")
    assert len(made.lost) == 1
    assert made.lost[0].startswith("a blank one: ")


def test_planes_in_files_and_in_memory_make_the_same_template(tmp_path: Path) -> None:
    from pipeline.stored import stored

    inputs = [fields.known(one(i)) for i in range(4)]
    grid = Wcs.tangent(150, -30, SHAPE, rotation=5.0)
    memory = coadd(inputs, grid, SHAPE, TemplateConfig(strip_rows=30))
    files = coadd([stored(c, tmp_path) for c in inputs], grid, SHAPE, TemplateConfig(strip_rows=30))
    np.testing.assert_array_equal(memory.image, files.image)
    np.testing.assert_array_equal(memory.mask, files.mask)


def test_files_alone_load_nothing_of_the_simulation(files: Path, tmp_path: Path) -> None:
    code = ("import sys; from twin.cli import main; "
            f"assert main(['template', {str(files / 'r')!r}, '--config', {str(files / 'site.toml')!r}, "
            f"'--out', {str(tmp_path / 't.fits')!r}]) == 0; "
            "assert not {'simpy', 'galsim', 'simulators', 'matplotlib'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, cwd=Path(__file__).parents[2])


def test_a_run_and_its_bundle_become_the_same_template(night: Path, tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["template", str(night), "--out", str(tmp_path / "of_run.fits")]) == 0
    assert "2 visits in r" in capsys.readouterr().out
    assert main(["bundle", str(night), "--out", str(tmp_path / "bundle")]) == 0
    assert main(["template", str(tmp_path / "bundle"), "--out", str(tmp_path / "of_bundle.fits")]) == 0
    one, other = read_template(tmp_path / "of_run.fits"), read_template(tmp_path / "of_bundle.fits")
    assert one.inputs == other.inputs
    assert np.allclose(one.image, other.image, atol=0.02 * np.sqrt(np.median(one.variance)))
    capsys.readouterr()
    assert "no visit in band z; there are r" in refused(capsys, night, "--band", "z", "--out", tmp_path / "z.fits")
