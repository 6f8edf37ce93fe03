"""`alert-twin fidelity` and `fidelity-fit`: drawn detectors against rendered ones, and what they are drawn by."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twin.commands import Commands


def add(commands: "Commands") -> None:
    """Declare the subcommands."""
    fidelity = commands.add_parser(
        "fidelity", help="what rendered detectors measured, against what drawn ones say: a test of the model",
        description="Of one run its rendered and its drawn detectors; of two the same detectors, which is sharper. "
                    "Exit code 1 where a figure differs by more than its error allows.")
    fidelity.add_argument("run", type=Path, nargs="+", help="a run folder with rendered detectors, or several nights")
    fidelity.add_argument("--against", type=Path, nargs="+", default=[], metavar="RUN",
                          help="runs of the same nights whose detectors were drawn; default: the same folders")
    fidelity.set_defaults(call=_fidelity)
    fit = commands.add_parser("fidelity-fit", help="fit the model of catalogue fidelity to rendered detectors")
    fit.add_argument("run", type=Path, nargs="+", help="run folders with rendered detectors")
    fit.set_defaults(call=_fit)


def _fidelity(options: argparse.Namespace) -> int:
    from pipeline.errors import InputError
    from reports.fidelity import LIMIT, compare, lines, losses, paired, sample
    from reports.store import Store, StoreError

    if options.against and len(options.against) != len(options.run):
        raise InputError(f"--against: as many runs as there are to compare, {len(options.run)}, got "
                         f"{len(options.against)}")
    try:
        measured = sample([Store(run) for run in options.run], "pixels")
        modelled = sample([Store(run) for run in options.against or options.run], "catalogue")
    except StoreError as error:
        raise InputError(str(error)) from None
    checks = compare(measured, modelled)
    kind = "the same detector-visits" if paired(measured, modelled) else "other detectors, whose skies differ"
    print(f"{len(measured.matches.exposures)} rendered detector-visits (measured) against "
          f"{len(modelled.matches.exposures)} drawn ones (modelled): {kind}")
    print("\n".join(lines(checks)))
    for taken in (measured, modelled):
        causes = ", ".join(f"{name} {value:.2f}" for name, value in losses(taken).items())
        print(f"no alert at S/N 6 and more, per detector-visit, {taken.fidelity}: {causes or 'none'}")
    failed = [check.name for check in checks if not check.passed]
    named = f": {'; '.join(failed)}" if failed else ""
    print(f"{len(failed)} of {len(checks)} figures beyond {LIMIT} sigmas{named}")
    return 1 if failed else 0


def _fit(options: argparse.Namespace) -> int:
    from pipeline.errors import InputError
    from reports.store import StoreError
    from twin.fidelity_fit import fit_runs, to_text

    try:
        print(to_text(fit_runs(options.run)))
    except StoreError as error:
        raise InputError(str(error)) from None
    return 0
