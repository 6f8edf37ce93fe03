"""Train the reliability model: simulate nights, measure, label every detection by truth, fit, write ONNX.

    scenario x seeds -> pixel halves -> features and labels -> boosted trees -> ONNX, and how well it does on seeds
    that it has not seen

The seeds and the scenario are others than any that figures are judged on. Needs the extra `train`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from pipeline import reliability
from pipeline.errors import InputError
from reports.match import distances
from twin.folders import claim
from twin.halves import Job, observatory, pixel_half, template_job
from twin.pool import open_pool
from twin.scenario import Scenario, to_toml

MATCH_PX: Final = 3.0          # of a detection from the true source that explains it
MIN_SNR: Final = 3.5           # fainter true sources explain nothing
CLEAR_PX: Final = 9.0          # a detection this near a true source, and not it, is neither real nor false
SHARE_HELD_BACK: Final = 4     # one in so many seeds is for the validation

FOREST: Final = {"n_estimators": 260, "max_depth": 5, "learning_rate": 0.06, "subsample": 0.5, "max_features": 10,
                 "min_samples_leaf": 20, "random_state": 0}


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled detections."""

    features: np.ndarray       # (n, len(reliability.NAMES)) float32
    real: np.ndarray           # (n,) bool
    snr: np.ndarray            # (n,) of the true source, or of the detection where it is false
    seed: np.ndarray           # (n,) int
    pixels: float              # usable pixels they were found in

    @classmethod
    def joined(cls, parts: Sequence["Examples"]) -> "Examples":
        """All of them."""
        return cls(np.concatenate([p.features for p in parts]), np.concatenate([p.real for p in parts]),
                   np.concatenate([p.snr for p in parts]), np.concatenate([p.seed for p in parts]),
                   sum(p.pixels for p in parts))

    def __getitem__(self, rows: np.ndarray) -> "Examples":
        return Examples(self.features[rows], self.real[rows], self.snr[rows], self.seed[rows], self.pixels)


def train(scenario: Scenario, seeds: Sequence[int], out: Path, *, processes: int = 1,
          false_weight: float = 1.0) -> str:
    """Train on `seeds`, a share of them held back, and write the model to `out` and its card beside it.

    `false_weight` is how much a false detection counts against a real one. Returns a line with what the held-back
    seeds say of it at the cut of 0.5.
    """
    if len(seeds) < 2:
        raise InputError(f"seeds: at least 2 are needed, one of them to be held back; got {len(seeds)}")
    with open_pool(processes) as pool:
        parts = [part for seed in seeds for part in _examples_of(replace_seed(scenario, seed), pool)]
    examples = Examples.joined(parts)
    held = np.isin(examples.seed, list(seeds)[::SHARE_HELD_BACK])
    if not (examples.real[~held].any() and (~examples.real[~held]).any()):
        raise InputError("these seeds hold no real or no false detections to learn from")
    model = fit(examples[~held], false_weight)
    card = {"version": reliability.VERSION, "trained": datetime.now(UTC).date().isoformat(),
            "scenario": scenario.name, "seeds": list(seeds), "held_back": list(seeds)[::SHARE_HELD_BACK],
            "real": int(examples.real.sum()), "false": int((~examples.real).sum()), "false_weight": false_weight,
            "forest": FOREST, "features": list(reliability.NAMES),
            "validation": validation(model, examples[held], examples.pixels * float(np.mean(held)))}
    _write(out, _onnx(model), card)
    return f"{out}: {card['real']} real and {card['false']} false detections; held back: {card['validation']}"


def replace_seed(scenario: Scenario, seed: int) -> Scenario:
    """The same night of another sky."""
    import msgspec

    return msgspec.structs.replace(scenario, seed=seed)


def _examples_of(scenario: Scenario, pool: Any) -> list[Examples]:
    with TemporaryDirectory(prefix="twin-train-") as name:
        folder = Path(name) / "run"
        claim(folder)
        (folder / "scenario.toml").write_text(to_toml(scenario))
        here = observatory(folder)
        list(pool.map(template_job, [folder] * len(here.earlier), here.earlier))
        jobs = [Job(folder, visit, detector) for visit in here.visits for detector in here.config.camera.detectors]
        return list(pool.map(_examples_of_job, jobs, [scenario.seed] * len(jobs)))


def _examples_of_job(job: Job, seed: int) -> Examples:
    half = pixel_half(job)
    if half.measured is None:
        return Examples(np.zeros((0, len(reliability.NAMES)), np.float32), np.zeros(0, bool), np.zeros(0),
                        np.zeros(0, int), 0.0)
    measured = half.measured
    measured.pixels.close()
    table = reliability.features(measured.sources, measured.science, measured.template, measured.difference)
    real, snr, clear = labels(measured.sources, half.truth)
    keep = clear & ~measured.sources["sky_source"]
    return Examples(table[keep], real[keep], snr[keep], np.full(int(keep.sum()), seed),
                    float(measured.log["usable_px"][0]))


def labels(sources: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which MEASUREMENT rows are real, the S/N of what explains them, and which are clearly one or the other."""
    truth = truth[(np.abs(truth["snr"]) >= MIN_SNR) | (truth["kind"] == b"moved_star")]
    if not len(truth) or not len(sources):
        return np.zeros(len(sources), bool), np.abs(sources["snr"]).astype(float), np.ones(len(sources), bool)
    gap = distances(truth, sources["x"], sources["y"])
    moved = truth["kind"] == b"moved_star"
    reach = MATCH_PX + np.where(moved, np.nan_to_num(truth["separation_px"]) / 2, 0.0)[:, None]
    same = (np.sign(truth["flux"])[:, None] == np.sign(sources["psfFlux"])) | moved[:, None]
    explained = (gap <= reach) & same
    real = explained.any(axis=0)
    partner = np.where(explained, np.abs(truth["snr"])[:, None], 0.0).max(axis=0)
    near = (gap <= reach + CLEAR_PX - MATCH_PX).any(axis=0)
    return real, np.where(real, partner, np.abs(sources["snr"])), real | ~near


def fit(examples: Examples, false_weight: float) -> Any:
    """A forest of boosted trees; each class weighs the same before `false_weight`."""
    from sklearn.ensemble import GradientBoostingClassifier

    share = examples.real.mean()
    weight = np.where(examples.real, 0.5 / share, 0.5 * false_weight / (1 - share))
    return GradientBoostingClassifier(**FOREST).fit(examples.features, examples.real, sample_weight=weight)


def validation(model: Any, examples: Examples, pixels: float) -> dict[str, float]:
    """What a model does at the cut of 0.5 on examples it has not seen."""
    passed = model.predict_proba(examples.features)[:, 1] >= 0.5
    real, snr = examples.real, examples.snr
    faint, bright = real & (snr >= 5.5) & (snr < 6.5), real & (snr >= 6.5)
    return {"kept_5.5_6.5": _mean(passed[faint]), "kept_above_6.5": _mean(passed[bright]),
            "false_kept": _mean(passed[~real]), "false_per_megapixel": float(passed[~real].sum() / pixels * 1e6),
            "false_before_per_megapixel": float((~real).sum() / pixels * 1e6)}


def _mean(values: np.ndarray) -> float:
    return round(float(values.mean()), 4) if len(values) else float("nan")


def _onnx(model: Any) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    wanted = [("features", FloatTensorType([None, len(reliability.NAMES)]))]
    return bytes(convert_sklearn(model, initial_types=wanted, options={id(model): {"zipmap": False}},
                                 target_opset=15).SerializeToString())


def _write(out: Path, model: bytes, card: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, content in ((out, model), (out.with_suffix(".json"), json.dumps(card, indent=1).encode())):
        aside = path.with_name(path.name + ".part")
        aside.write_bytes(content)
        aside.replace(path)


__all__ = ["Examples", "fit", "labels", "train", "validation"]
