"""Training: labels by truth, a model that learns what separates them, and a card of what it was trained on."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import reliability
from pipeline.errors import InputError
from schemas.measures import MEASUREMENT, TRUTH, empty
from twin.train import Examples, _onnx, _write, fit, labels, train, validation

from .conftest import small


def truth_at(x: float, y: float, snr: float, flux: float = 1.0, length: float = 0.0) -> np.ndarray:
    row = empty(TRUTH, 1)
    row["x"], row["y"], row["snr"], row["flux"], row["kind"] = x, y, snr, flux, b"transient"
    row["trail_length"], row["trail_angle"], row["separation_px"] = length, 0.0, 0.0
    return row


def sources_at(*places: tuple[float, float, float]) -> np.ndarray:
    rows = empty(MEASUREMENT, len(places))
    rows["x"], rows["y"], rows["psfFlux"] = zip(*places, strict=True)
    rows["snr"] = 6.0
    return rows


def test_a_detection_is_real_near_a_true_source_of_its_sign() -> None:
    truth = np.concatenate([truth_at(50, 50, 10), truth_at(200, 50, 10, flux=-1.0), truth_at(50, 200, 2.0)])
    found = sources_at((51, 50, 1.0), (200, 51, 1.0), (50, 200, 1.0), (120, 120, 1.0), (57, 50, 1.0))
    real, snr, clear = labels(found, truth)
    assert real.tolist() == [True, False, False, False, False]     # wrong sign; too faint to explain; none; beside
    assert clear.tolist() == [True, False, True, True, False]
    assert snr[0] == 10


def test_a_detection_anywhere_on_a_trail_is_real() -> None:
    real, _, _ = labels(sources_at((70, 50, 1.0), (95, 50, 1.0)), truth_at(50, 50, 20, length=60.0))
    assert real.tolist() == [True, False]


def examples(n: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(n, len(reliability.NAMES))).astype(np.float32)
    real = table[:, 3] + 0.3 * rng.normal(size=n) > 0
    return Examples(table, real, np.full(n, 7.0), np.full(n, seed), 1e6)


def test_a_model_learns_what_separates_its_classes_and_survives_its_file(tmp_path: Path) -> None:
    import onnxruntime

    model = fit(examples(600, 1), 1.0)
    report = validation(model, examples(300, 2), 1e6)
    assert report["kept_above_6.5"] > 0.8
    assert report["false_kept"] < 0.2
    _write(tmp_path / "m.onnx", _onnx(model), {"features": list(reliability.NAMES)})
    session = onnxruntime.InferenceSession((tmp_path / "m.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    table = examples(50, 3).features
    theirs = session.run(None, {"features": table})[-1][:, 1]
    assert np.allclose(theirs, model.predict_proba(table)[:, 1], atol=1e-5)
    assert json.loads((tmp_path / "m.json").read_text())["features"][0] == "snr"


def test_the_shipped_model_says_what_it_was_trained_on() -> None:
    from importlib.resources import files

    card = json.loads((files("pipeline") / "data" / "reliability.json").read_text())
    assert card["version"] == reliability.VERSION
    assert card["features"] == list(reliability.NAMES)
    assert card["scenario"] == "training"
    assert set(card["held_back"]) < set(card["seeds"])
    assert card["validation"]["false_kept"] < 0.3
    assert card["validation"]["kept_above_6.5"] > 0.95


def test_one_seed_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 2 are needed"):
        train(small(), [1], tmp_path / "m.onnx")
