"""Hashes of what the simulators draw: run before and after a change that must leave a scenario's exposures alone.

    python -m tests.simulators.exposure_hashes scenarios/first_light.toml scenarios/regression.toml > before
    (change, run again) > after; diff before after

Each line has a scenario, a visit and SHA-256 of image, mask, truth, pixels of artifacts and everything else that the
exposure says, and the same of one earlier visit that its template is made of. Recorded baselines hold as long as these
do not change.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np

from twin.observatory import Observatory
from twin.scenario import read_scenario

DETECTOR = 94


def digest(*parts: object) -> str:
    """SHA-256 of arrays' types, shapes and bytes, and of other values' text."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype} {part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            total.update(repr(part).encode())
    return total.hexdigest()


def lines(path: Path, numbers: tuple[int, ...] = (0, -1)) -> list[str]:
    """One line per visit of the night, by its place in it."""
    with tempfile.TemporaryDirectory() as folder:
        scenario = read_scenario(path)
        here = Observatory(scenario, Path(folder))
        out = []
        for number in numbers:
            visit = here.visits[number]
            earlier = [here.expose_earlier(one, DETECTOR) for one in here.earlier[visit.band]]
            made = here.expose(visit, DETECTOR)
            found, before = made.calibrated, earlier[0]
            out.append(f"{path.name} {visit.visit} {digest(found.image, found.mask, made.truth, made.truth_pixels)} "
                       f"{digest(visit, found.wcs, found.gain, found.read_noise, found.saturation)} "
                       f"{digest(before.image, before.mask, before.visit, before.wcs)}")
        return out


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print("\n".join(lines(Path(argument))))
