"""The light curve of one DIAObject: difference flux against time, one colour a band."""

from datetime import datetime, timedelta

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import BANDS, MUTED, nothing, panels, styled

_EPOCH = datetime(1858, 11, 17)


@styled
def plot(points: np.ndarray, title: str) -> Figure:
    """DIASources filled, forced points as rings, withdrawn ones crossed out.

    `points` have kind (source or forced), band, midpointMjdTai, psfFlux and psfFluxErr [nJy], timeWithdrawnMjdTai.
    """
    figure, (axes,) = panels(width=8.0, height=4.0, labels=("-000000",), right=0.3)
    day = float(np.floor(points["midpointMjdTai"].min())) if len(points) else 0.0
    axes.set(xlabel=f"midpoint [MJD − {day:.0f}, TAI]", ylabel="difference PSF flux [nJy]", title=title)
    if not len(points):
        nothing(axes, "no points")
        return figure
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    for band in (band for band in BANDS if (points["band"] == band.encode()).any()):
        for kind, face, size in ((b"source", BANDS[band], 5.0), (b"forced", "none", 9.0)):
            rows = points[(points["band"] == band.encode()) & (points["kind"] == kind)]
            label = f"{band} {kind.decode()}" if len(rows) else None
            axes.errorbar(rows["midpointMjdTai"] - day, rows["psfFlux"], rows["psfFluxErr"], fmt="o", color=BANDS[band],
                          markerfacecolor=face, markersize=size, linewidth=1.0, label=label)
    withdrawn = points[np.isfinite(points["timeWithdrawnMjdTai"])]
    if len(withdrawn):
        axes.plot(withdrawn["midpointMjdTai"] - day, withdrawn["psfFlux"], "x", color="black", markersize=9, zorder=4,
                  label="withdrawn")
    axes.legend(ncols=2, loc="best")
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.locator_params(axis="x", nbins=7)
    first = _EPOCH + timedelta(days=float(points["midpointMjdTai"].min()))
    axes.text(1.0, 1.02, f"from {first:%Y-%m-%d}", transform=axes.transAxes, ha="right", color=MUTED, fontsize=8.5)
    return figure
