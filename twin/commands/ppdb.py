"""`alert-twin replicate`, `lightcurve` and `cone`: the PPDB, and what one asks of it or of a prompt store."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from pipeline.lookup import Catalogue
    from pipeline.ports import PromptArchive
    from pipeline.ppdb import Ppdb
    from twin.commands import Commands

STORE = "URL of a prompt store (duckdb:path, postgresql://...), its file, or a run folder"


def add(commands: "Commands") -> None:
    """Declare the subcommands."""
    replicate = commands.add_parser("replicate", help="copy a prompt store to a PPDB of Parquet files, chunk by chunk")
    replicate.add_argument("store", help=STORE)
    replicate.add_argument("--out", type=Path, required=True, help="the PPDB's folder")
    when = replicate.add_mutually_exclusive_group()
    when.add_argument("--now", type=float, metavar="MJD", help="poll once, as of this time (TAI; default: the clock)")
    when.add_argument("--simulated", action="store_true", help="poll every 300 s of the store's own time, and say how "
                      "long each chunk waited")
    when.add_argument("--watch", action="store_true", help="poll every 300 s until interrupted")
    replicate.set_defaults(call=_replicate)

    curve = commands.add_parser("lightcurve", help="print the light curve of a DIAObject as CSV")
    curve.add_argument("target", help=f"{STORE}; or a PPDB folder")
    curve.add_argument("id", type=int, help="diaObjectId")
    curve.add_argument("--plot", type=Path, metavar="PNG", help="draw it too")
    curve.set_defaults(call=_lightcurve)

    around = commands.add_parser("cone", help="print the DIAObjects around a place as CSV, nearest first")
    around.add_argument("target", help=f"{STORE}; or a PPDB folder")
    around.add_argument("ra", type=float, help="[deg]")
    around.add_argument("dec", type=float, help="[deg]")
    around.add_argument("radius", type=float, help="[arcsec]")
    around.set_defaults(call=_cone)


def _replicate(options: argparse.Namespace) -> int:
    import time

    import numpy as np

    from pipeline import replicate
    from twin.process import tai_now

    with replicate.opened(options.out) as ppdb, _store(options.store) as store:
        if options.watch:
            while True:                                # until interrupted; what was copied stays
                _say(ppdb, replicate.poll(store, ppdb, tai_now()))
                time.sleep(replicate.POLL_S)
        if options.simulated:
            n = sum(replicate.poll(store, ppdb, now) for now in replicate.polls(store.chunks()))
        else:
            n = replicate.poll(store, ppdb, tai_now() if options.now is None else options.now)
        _say(ppdb, n)
        if options.simulated and ppdb.chunks:
            lags = np.array(replicate.lags_s(ppdb.chunks))
            print(f"from the last save of a chunk to its copy: median {np.median(lags):.0f} s, 95 % "
                  f"{np.percentile(lags, 95):.0f} s, longest {lags.max():.0f} s")
    return 0


def _say(ppdb: "Ppdb", copied: int) -> None:
    rows: dict[str, int] = {}
    for chunk in ppdb.chunks:
        for name, n in chunk.rows.items():
            rows[name] = rows.get(name, 0) + n
    print(f"copied {copied} chunks; {ppdb.folder} has {len(ppdb.chunks)}: "
          + ", ".join(f"{n} {name}" for name, n in rows.items()), flush=True)


def _lightcurve(options: argparse.Namespace) -> int:
    from pipeline.errors import InputError
    from pipeline.lookup import light_curve

    with _catalogue(options.target) as catalogue:
        points = light_curve(catalogue, options.id)
    if not len(points):
        raise InputError(f"{options.target}: no DIAObject {options.id} has points there")
    _print(points)
    if options.plot is not None:
        from reports.drawing import png
        from reports.light_curve import plot
        options.plot.write_bytes(png(plot(points, f"DIAObject {options.id}")))
    return 0


def _cone(options: argparse.Namespace) -> int:
    from pipeline.errors import InputError
    from pipeline.lookup import cone

    with _catalogue(options.target) as catalogue:
        try:
            _print(cone(catalogue, options.ra, options.dec, options.radius))
        except ValueError as error:
            raise InputError(str(error)) from error
    return 0


def _print(rows: "np.ndarray") -> None:
    names = rows.dtype.names or ()
    lines = [",".join(names)]
    lines += [",".join(_cell(row[name]) for name in names) for row in rows]
    sys.stdout.write("\n".join(lines) + "\n")


def _cell(value: Any) -> str:
    """A value in the fewest digits that read back; nothing for none."""
    if isinstance(value, bytes):
        return value.decode()
    return "" if value != value else str(value)


@contextmanager
def _catalogue(target: str) -> Iterator["Catalogue"]:
    """A PPDB, or a prompt store."""
    if (Path(target) / "manifest.json").is_file():
        from pipeline.ppdb import Ppdb
        ppdb = Ppdb(Path(target))
        try:
            yield ppdb
        finally:
            ppdb.close()
    else:
        with _store(target) as store:
            yield store


@contextmanager
def _store(target: str) -> Iterator["PromptArchive"]:
    """A prompt store that is there already."""
    from pipeline.errors import InputError
    from pipeline.open import open_store

    path = Path(target.removeprefix("duckdb:"))
    if path.is_dir():
        path /= "prompt.duckdb"
    if not target.startswith("postgresql://"):
        if not path.is_file():
            raise InputError(f"{target}: expected {STORE}; there is no file {path}")
        target = f"duckdb:{path}"
    store = open_store(target)
    try:
        yield store
    finally:
        store.close()
