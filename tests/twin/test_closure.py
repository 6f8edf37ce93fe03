"""What a computation can import, and that the keys of cached results follow it: one edit each."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pipeline.config import PipelineConfig
from pipeline.pixel_config import PixelConfig
from twin import closure as closures
from twin.cache import Cache
from twin.closure import PACKAGES, Closure, closure, libraries
from twin.recall import SOURCES, Remembering, key_of
from twin.scenario import Scenario

from .conftest import small

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = {"pipeline.associate", "pipeline.alerts", "pipeline.alerts.package", "pipeline.config", "pipeline.filter",
             "pipeline.forced", "pipeline.objects", "pipeline.ports", "pipeline.prompt", "pipeline.retry",
             "pipeline.solarsystem", "pipeline.stores.duckdb", "pipeline.transform", "reports.match", "twin.cache",
             "twin.halves", "twin.night", "twin.platform", "twin.recall", "twin.scenario"}


def tree(folder: Path, **files: str) -> Path:
    """Packages of modules: `pipeline__a__b="..."` is pipeline/a/b.py."""
    for name, text in files.items():
        path = folder / f"{name.replace('__init', '<init').replace('__', '/').replace('<init', '__init__')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in list(folder.rglob("*")):
        if path.is_dir() and not (path / "__init__.py").exists():
            (path / "__init__.py").write_text("")
    return folder


def found(folder: Path, module: str) -> Closure:
    return closure(module, root=folder)


def test_imports_are_followed_wherever_they_stand(tmp_path: Path) -> None:
    made = found(tree(tmp_path, pipeline__a="from pipeline import b\nimport numpy.linalg\n",
                      pipeline__b="def late():\n    import pipeline.c.d\n    from schemas.e import name\n",
                      pipeline__c__d="import scipy\n", pipeline__c__unused="", schemas__e="name = 1\n",
                      pipeline__alone="import os\n"), "pipeline.a")
    assert set(made.digests) == {"pipeline", "pipeline.a", "pipeline.b", "pipeline.c", "pipeline.c.d", "schemas",
                                 "schemas.e"}
    assert made.others == {"numpy", "scipy"}


def test_a_package_runs_its_init_and_names_may_be_modules(tmp_path: Path) -> None:
    made = found(tree(tmp_path, pipeline__a="from .b import c, name\nfrom . import d\n",
                      pipeline__b____init__="", pipeline__b__c="", pipeline__d="", pipeline__e=""), "pipeline.a")
    assert {"pipeline.b", "pipeline.b.c", "pipeline.d"} < set(made.digests)
    assert "pipeline.e" not in made.digests


def test_what_only_type_checkers_import_does_not_count(tmp_path: Path) -> None:
    made = found(tree(tmp_path, pipeline__a="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
                      "    import pipeline.b\nelse:\n    import pipeline.c\n", pipeline__b="", pipeline__c=""),
                 "pipeline.a")
    assert "pipeline.c" in made.digests
    assert "pipeline.b" not in made.digests


def test_imports_by_name_count_and_those_of_unknown_names_are_everything(tmp_path: Path) -> None:
    by_name = "from importlib import import_module\nimport_module({})\n"
    folder = tree(tmp_path, pipeline__a=by_name.format("'pipeline.b'"), pipeline__b="",
                  pipeline__c=by_name.format("str(1)"), twin__d="")
    assert "twin.d" not in found(folder, "pipeline.a").digests
    assert "pipeline.b" in found(folder, "pipeline.a").digests
    assert "twin.d" in found(folder, "pipeline.c").digests


def test_data_beside_a_module_that_asks_for_it_counts(tmp_path: Path) -> None:
    folder = tree(tmp_path, pipeline__a="from importlib.resources import files\n", pipeline__b="", twin__c="__file__")
    (folder / "pipeline" / "data").mkdir()
    (folder / "pipeline" / "data" / "model.onnx").write_bytes(b"1")
    (folder / "twin" / "table.csv").write_text("1")
    assert "pipeline/data/model.onnx" in found(folder, "pipeline.a").digests
    assert "pipeline/data/model.onnx" not in found(folder, "pipeline.b").digests
    assert "twin/table.csv" in found(folder, "twin.c").digests


def test_a_missing_module_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no module pipeline\.x"):
        found(tree(tmp_path, pipeline__a=""), "pipeline.x")


@pytest.mark.parametrize("root", sorted(set(SOURCES.values())))
def test_all_that_python_loads_is_in_the_closure(root: str) -> None:
    code = (f"import sys, {root}; print(*(n for n in sys.modules if n.partition('.')[0] in {PACKAGES}))")
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names = set(loaded.stdout.split())
    assert len(names) > 20
    assert names <= set(closure(root).digests)


def test_the_pixel_half_does_not_see_the_catalogue_half() -> None:
    half = closure(SOURCES["half"]).digests
    assert not CATALOGUE & set(half)
    assert {"pipeline.measure.trail", "pipeline.reliability", "pipeline/data/reliability.onnx", "simulators.sky",
            "twin.exposures", "twin.history", "twin.inspect"} < set(half)


def test_exposures_do_not_see_the_pipeline() -> None:
    assert not [name for name in closure(SOURCES["exposure"]).digests if name.startswith("pipeline")]
    assert not [name for name in closure(SOURCES["template"]).digests if name.startswith("pipeline.measure")]


EDITS = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from twin import closure, recall

root = Path(sys.argv[1])
assert closure.ROOT == root.resolve(), closure.ROOT

def keys():
    closure.closure.cache_clear()
    return {kind: recall.key_of(kind, {}) for kind in recall.SOURCES}

before, changed = keys(), {}
for path in (root / name for name in sys.argv[2:]):
    text = path.read_bytes()
    path.write_bytes(text + b"\\n# an edit\\n")
    after = keys()
    path.write_bytes(text)
    changed[path.relative_to(root).as_posix()] = [kind for kind in before if after[kind] != before[kind]]
print(json.dumps({"changed": changed, "same": keys() == before}))
"""


def test_every_edit_of_what_is_imported_changes_the_key_and_no_other_does(tmp_path: Path) -> None:
    """In a copy of the source and a process of its own: a line added to each file in turn."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("baselines"))   # with kernels
    inside = {path.relative_to(ROOT).as_posix() for root in SOURCES.values() for path in closure(root).paths}
    outside = [f"{name.replace('.', '/')}.py" for name in sorted(CATALOGUE)]
    outside = [file for file in outside if (ROOT / file).is_file()] + ["scenarios/first_light.toml"]
    ran = subprocess.run([sys.executable, "-c", EDITS, str(tmp_path), *sorted(inside), *outside], cwd=tmp_path,
                         capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = json.loads(ran.stdout)
    assert told["same"]
    changed = told["changed"]
    for kind, root in SOURCES.items():
        files = {path.relative_to(ROOT).as_posix() for path in closure(root).paths}
        assert {file for file, kinds in changed.items() if kind in kinds} == files
    assert len(outside) > 15
    assert "pipeline/associate.py" in outside
    assert not any(changed[file] for file in outside)
    assert changed["pipeline/measure/dipole.py"] == ["half"]
    assert changed["pipeline/difference/whiten.py"] == ["difference", "half"]
    assert set(changed["pipeline/calibrate/psf.py"]) == {"template", "difference", "half"}
    assert set(changed["simulators/kernels/stamps.py"]) == set(SOURCES) - {"difference"}     # it has the exposure's key
    assert changed["pipeline/data/reliability.onnx"] == ["half"]


def keys_of(scenario: Scenario) -> dict[str, str]:
    here = Remembering(scenario, Cache(Path("unused")))
    visit, earlier = here.visits[0], here.earlier["r"][0]
    return {"exposure": here.exposure_key(visit, 94), "earlier": here.earlier_key(earlier, 94),
            "template": here.template_key("r"), "difference": here.difference_key(visit, 94),
            "half": here.half_key(visit, 94)}


def leaves(config: msgspec.Struct) -> list[tuple[str, ...]]:
    """Paths of all settings."""
    out: list[tuple[str, ...]] = []
    for name in config.__struct_fields__:
        value = getattr(config, name)
        out += [(name, *path) for path in leaves(value)] if isinstance(value, msgspec.Struct) else [(name,)]
    return out


def another_tuple(value: tuple[object, ...]) -> tuple[object, ...]:
    """Another one of the same kind; of three where there was none: a kernel's basis has so many widths."""
    if all(isinstance(one, int | float) for one in value):
        return tuple(one + 1 for one in value) or (1.0, 1.0, 1.0)  # type: ignore[operator]  # they are numbers
    return (*value, *value[:1])


CHOICES = {"cutouts": "paper", "schema": "10.0", "fields": "all", "packets": "counted"}   # where not any text will do


def with_another(config: msgspec.Struct, path: tuple[str, ...]) -> msgspec.Struct:
    """The settings with one of them changed."""
    value = getattr(config, path[0])
    if len(path) > 1:
        return msgspec.structs.replace(config, **{path[0]: with_another(value, path[1:])})
    if isinstance(value, str):
        other: object = CHOICES.get(path[0], f"{value}x")
    else:
        other = (not value if isinstance(value, bool) else value + 1 if isinstance(value, int | float)
                 else another_tuple(value) if isinstance(value, tuple) else 1.0)
    return msgspec.structs.replace(config, **{path[0]: other})


PIXEL = leaves(PixelConfig())
OTHERS = [path for path in leaves(PipelineConfig()) if path not in PIXEL]


def test_each_setting_of_the_pixel_half_changes_its_key_and_no_other_does() -> None:
    before = keys_of(small())
    assert len(PIXEL) > 50
    assert len(OTHERS) > 30
    for path in PIXEL + OTHERS:
        scenario = msgspec.structs.replace(small(), pipeline=with_another(small().pipeline, path))
        after = keys_of(scenario)
        changed = {kind for kind in before if after[kind] != before[kind]}
        if path in OTHERS:
            assert not changed, path
        elif path[0] in ("calibrate", "template"):
            assert {"template", "difference", "half"} <= changed, path
        elif path[0] in ("signature", "difference"):
            assert changed == {"difference", "half"}, path
        else:
            assert changed == {"half"}, path


@pytest.mark.parametrize("path", [("camera", "gain"), ("conditions", "clouds"), ("sky", "stars", "density"),
                                  ("artifacts", "streaks"), ("field", "ra"), ("cadence", "exposure_s")])
def test_settings_of_the_sky_change_every_key(path: tuple[str, ...]) -> None:
    changed = msgspec.structs.replace(small(), simulation=with_another(small().simulation, path))
    assert not set(keys_of(changed).values()) & set(keys_of(small()).values())


def test_seed_visit_detector_and_kept_stamps_change_the_key_and_names_do_not() -> None:
    here, before = Remembering(small(), Cache(Path("unused"))), keys_of(small())
    assert before == keys_of(small(name="another", description="of the same", platform={"workers": 3}))
    assert keys_of(small(seed=4))["exposure"] != before["exposure"]
    assert keys_of(small(recorder={"stamps_per_visit": 3}))["half"] != before["half"]
    first, second = here.visits
    assert len({here.half_key(visit, detector) for visit in (first, second) for detector in (94, 95)}) == 4


def test_a_model_of_reliability_counts_by_its_contents(tmp_path: Path) -> None:
    model = tmp_path / "other.onnx"
    keys = []
    for content in (b"1", b"2", b"1"):
        model.write_bytes(content)
        keys.append(keys_of(small(pipeline={"reliability": {"model": str(model)}}))["half"])
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]


@pytest.mark.parametrize(("library", "kinds"), [("numpy", set(SOURCES)), ("llvmlite", set(SOURCES)),
                                                ("galsim", set(SOURCES) - {"difference"}),
                                                ("sep", {"template", "difference", "half"}), ("onnxruntime", {"half"}),
                                                ("simpy", set()), ("duckdb", set())])
def test_versions_of_the_libraries_change_the_keys_of_what_rests_on_them(library: str, kinds: set[str],
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    before = {kind: key_of(kind, {}) for kind in SOURCES}
    real = closures.version
    monkeypatch.setattr(closures, "version", lambda name: "0.0" if name == library else real(name))
    libraries.cache_clear()
    try:
        assert {kind for kind in SOURCES if key_of(kind, {}) != before[kind]} == kinds
    finally:
        libraries.cache_clear()


@pytest.mark.parametrize("what", ["python_version", "processor"])
def test_python_and_the_processor_count(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of("half", {})
    monkeypatch.setattr(closures.platform if what == "python_version" else closures, what, lambda: "another")
    libraries.cache_clear()
    try:
        assert key_of("half", {}) != before
    finally:
        libraries.cache_clear()


def test_a_source_written_after_the_process_began_is_seen(tmp_path: Path) -> None:
    made = found(tree(tmp_path, pipeline__a=""), "pipeline.a")
    moment = max(path.stat().st_ctime for path in made.paths)
    assert not made.touched_since(moment)
    assert made.touched_since(closures.started())
    os.utime(tmp_path / "pipeline" / "a.py", (0, 0))             # as archives do
    assert made.touched_since(closures.started())
    (tmp_path / "pipeline" / "a.py").unlink()
    assert made.touched_since(moment + 1e6)
