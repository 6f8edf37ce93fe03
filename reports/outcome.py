"""A test's runs laid against their truth, row by row: what two sides are compared by, and what a baseline keeps."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one side made of a test: all nights together.

    Every table has `seed`, `visit`, `detector`; `unit` and `object` are parallel arrays that `paired` fills with
    indices which both sides share.
    """

    sources: np.ndarray        # OUTCOME
    false: np.ndarray          # OUTCOME_FALSE
    forced: np.ndarray         # OUTCOME_FORCED
    stars: np.ndarray          # OUTCOME_STAR
    visits: np.ndarray         # EXPOSURE_LOG and `seed`
    packets: np.ndarray        # PUBLICATION and `seed`
    steps: np.ndarray          # STEP and `seed`
    traces: np.ndarray         # TRACE and `seed`
    facts: dict[str, str]      # of the first night
    folders: dict[int, Path] = field(default_factory=dict)   # run folder by seed, where there is one: for cutouts
    units: dict[str, np.ndarray] = field(default_factory=dict)     # by table name: (n,) int64
    objects: dict[str, np.ndarray] = field(default_factory=dict)   # by table name: (n,) int64, -1 for none
