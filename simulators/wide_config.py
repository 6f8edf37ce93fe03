"""The sky of a survey night in numbers."""

from typing import Final

import numpy as np

from simulators.config import Count, Fraction, NotNegative, Positive, Strict

KINDS: Final = ("variable", "agn", "transient", "asteroid")


class WideConfig(Strict, frozen=True):
    """The sky of a survey night at catalogue fidelity; its populations are those of `simulation.sky`."""

    alerts_per_visit: Positive = 1000.0     # mean over the night of all detectors; the density follows from it
    variables: NotNegative = 0.35           # shares of the alerts of true sources: assumed
    agn: NotNegative = 0.2
    transients: NotNegative = 0.1
    asteroids: NotNegative = 0.35
    template_visits: Count = 10             # that a template is the mean of: its noise; 0: it has none
    cells: Count = 1000                     # of the sky that are kept
    efficiency: Fraction = 0.9789           # of sources over the threshold that are detected, as in `catalogs`
    false_per_megapixel: NotNegative = 1.14   # likewise

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.variables + self.agn + self.transients + self.asteroids > 0:
            raise ValueError("one of the shares variables, agn, transients, asteroids must be above 0, got four zeros")

    @property
    def shares(self) -> np.ndarray:
        """(4,) of KINDS, summing to 1."""
        given = np.array([self.variables, self.agn, self.transients, self.asteroids])
        return np.asarray(given / given.sum())


__all__ = ["KINDS", "WideConfig"]
