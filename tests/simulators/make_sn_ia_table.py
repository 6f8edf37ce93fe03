"""How `simulators/lightcurves/sn_ia.csv` was made; run it where sncosmo (BSD) is installed.

    python tests/simulators/make_sn_ia_table.py > simulators/lightcurves/sn_ia.csv

The spectral series of Hsiao et al. 2007 (ApJ 663, 1187), as sncosmo 2.13.1 ships it ("hsiao-subsampled"), is averaged
over cells of 5 nm at phases 1.25 d apart, divided by its largest value, and written as thousandths of a decade.
"""

import sys

import numpy as np

PHASES = np.arange(-20.0, 85.01, 1.25)      # [day] from B maximum, rest frame
CELLS = np.arange(150.0, 1121.0, 5.0)     # centres [nm]


def main() -> None:
    import sncosmo

    source = sncosmo.get_source("hsiao-subsampled")
    fine = np.linspace(-2.0, 2.0, 5)
    flux = np.array([np.clip(source.flux(phase, 10.0 * (CELLS[:, None] + fine).ravel()), 0.0, None)
                     .reshape(len(CELLS), -1).mean(axis=1) for phase in PHASES])
    table = np.round(1000.0 * np.log10(np.maximum(flux / flux.max(), 1e-6))).astype(int)
    print("# f_lambda of a type Ia supernova, 1000 log10(f / largest); rows: phase from B maximum [day], rest frame;")
    print("# columns: 5 nm cells by centre [nm]. From Hsiao et al. 2007 by tests/simulators/make_sn_ia_table.py")
    print("phase," + ",".join(f"{cell:g}" for cell in CELLS))
    for phase, row in zip(PHASES, table, strict=True):
        print(f"{phase:g}," + ",".join(map(str, row)))


if __name__ == "__main__":
    sys.exit(main())
