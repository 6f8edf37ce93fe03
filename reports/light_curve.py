"""The light curve of one DIAObject: difference flux against time, one colour a band."""

from datetime import datetime, timedelta

import numpy as np
from matplotlib.figure import Figure

from reports.drawing import BANDS, MUTED, nothing, panels, styled

_EPOCH = datetime(1858, 11, 17)


@styled
def plot(points: np.ndarray, title: str) -> Figure:
    """DIASources filled, forced points open, withdrawn ones crossed out.

    `points` have kind (source or forced), band, midpointMjdTai, psfFlux and psfFluxErr [nJy], timeWithdrawnMjdTai.
    """
    figure, (axes,) = panels(width=8.0, height=4.0, labels=("-000000",))
    axes.set(xlabel="midpoint [MJD, TAI]", ylabel="difference PSF flux [nJy]", title=title)
    if not len(points):
        nothing(axes, "no points")
        return figure
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    for band in (band for band in BANDS if (points["band"] == band.encode()).any()):
        for kind, face in ((b"source", BANDS[band]), (b"forced", "white")):
            rows = points[(points["band"] == band.encode()) & (points["kind"] == kind)]
            label = f"{band} {kind.decode()}" if len(rows) else None
            axes.errorbar(rows["midpointMjdTai"], rows["psfFlux"], rows["psfFluxErr"], fmt="o", color=BANDS[band],
                          markerfacecolor=face, linewidth=1.0, label=label, zorder=3 if kind == b"source" else 2)
    withdrawn = points[np.isfinite(points["timeWithdrawnMjdTai"])]
    if len(withdrawn):
        axes.plot(withdrawn["midpointMjdTai"], withdrawn["psfFlux"], "x", color="black", markersize=9, zorder=4,
                  label="withdrawn")
    axes.legend(ncols=2, loc="best")
    axes.ticklabel_format(axis="x", useOffset=False)
    first = _EPOCH + timedelta(days=float(points["midpointMjdTai"].min()))
    axes.text(0.995, 1.02, f"from {first:%Y-%m-%d}", transform=axes.transAxes, ha="right", color=MUTED, fontsize=8.5)
    return figure
