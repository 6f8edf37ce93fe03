"""`alert-twin batch`: the morning after a night."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.batch.morning import Night
    from pipeline.config import PipelineConfig
    from twin.commands import Commands
    from twin.morning import Beside

EPILOG = """\
TARGET is a run folder of `run` or `process`, or the URL of a prompt store (duckdb:path, postgresql://...).
Steps, in their order: catchup, dedup, precovery, consolidate. One by name is done again even if it was done before.
`retract` withdraws the DIASources of visits, or those with given ids, and says why."""


def add(commands: "Commands") -> None:
    """Declare the subcommand."""
    batch = commands.add_parser("batch", help="do the morning's work on a run or a prompt store", epilog=EPILOG,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    batch.add_argument("target", help="run folder, or URL of a prompt store")
    batch.add_argument("step", nargs="?", choices=("catchup", "dedup", "precovery", "consolidate", "retract"),
                       help="this step alone; without it all, and what was done before is not done again")
    batch.add_argument("--again", action="store_true", help="do what was done before again")
    batch.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
                       help="a setting of the pipeline, as in --set batch.deduplicate.algorithm=deployed")
    batch.add_argument("--night", type=int, metavar="YYYYMMDD", help="of a store: the observing day (default the last)")
    batch.add_argument("--folder", type=Path, help="of a store that is no file: where its journal is")
    batch.add_argument("--config", type=Path, help="of a run of `process`: its site config")
    batch.add_argument("--science", type=Path, nargs="+", default=[], help="of a run of `process`: the night's files, "
                       "for what it did not finish")
    batch.add_argument("--template", type=Path, help="as for `process`")
    batch.add_argument("--template-from", type=Path, nargs="+", default=[], help="as for `process`")
    batch.add_argument("--visit", type=int, action="append", default=[], help="retract: a visit, all of its detectors")
    batch.add_argument("--detector", type=int, help="retract: of the visits this detector alone")
    batch.add_argument("--source", type=int, action="append", default=[], help="retract: a diaSourceId")
    batch.add_argument("--reason", default="", help="retract: why; it is recorded")
    batch.set_defaults(call=_batch)


def _batch(options: argparse.Namespace) -> int:
    from pipeline.batch.morning import STEPS, morning
    from pipeline.steps import run

    with _opened(options) as (night, beside):
        if options.step == "retract":
            print(_retract(options, night, beside))
            return 0
        steps = (options.step,) if options.step else STEPS
        before = {} if options.again or options.step else night.journal.results(night.day_obs)
        results = run(morning(night, steps, again=options.again or bool(options.step)))
    print(f"night {night.day_obs}, {beside.folder}")
    for name, result in results.items():
        done = " (done before)" if name in before else ""
        print(f"  {name + done:24s}" + ", ".join(f"{key} {_shown(value)}" for key, value in result.items()))
    return 0


def _shown(value: Any) -> str:
    return "-" if value is None else str(value).replace("_", " ") if isinstance(value, str) else f"{value:,}"


@contextmanager
def _opened(options: argparse.Namespace) -> "Iterator[tuple[Night, Beside]]":
    """The night of a target."""
    from pipeline.config import PipelineConfig
    from pipeline.errors import InputError
    from twin import morning
    from twin.folders import whole

    target, changed = options.target, _changes(options.overrides)
    if "://" in target or target.startswith("duckdb:"):
        if not target.startswith("duckdb:") and options.folder is None:
            raise InputError(f"prompt store {target!r}: name a folder for its journal (--folder)")
        folder = options.folder or Path(target.partition(":")[2]).absolute().parent / "batch"
        with morning.stored(target, folder, options.night, changed(PipelineConfig())) as found:
            yield found
        return
    run = Path(target)
    if not (run / "measures").is_dir():
        raise InputError(f"{target}: no run folder, it has no measures/")
    whole(run)
    if (run / "scenario.toml").is_file():
        from twin.scenario import read_scenario

        with morning.simulated(run, changed(read_scenario(run / "scenario.toml").pipeline)) as found:
            yield found
        return
    with morning.produced(run, options.config, options.science, options.template, options.template_from,
                          changed) as found:
        yield found


def _changes(overrides: list[str]) -> "Callable[[PipelineConfig], PipelineConfig]":
    """What `--set` makes of the pipeline's settings."""
    def changed(config: "PipelineConfig") -> "PipelineConfig":
        import msgspec

        from pipeline.config import PipelineConfig
        from pipeline.errors import InputError
        from twin.scenario import overlaid

        try:
            return msgspec.convert(overlaid(msgspec.to_builtins(config), overrides=overrides), PipelineConfig)
        except msgspec.ValidationError as error:
            raise InputError(f"--set {' '.join(overrides)}: {error}") from None

    return changed


def _retract(options: argparse.Namespace, night: "Night", beside: "Beside") -> str:
    """Withdraw what the options name; a line that says what that did."""
    from functools import partial

    import numpy as np

    from pipeline.batch.retract import retract
    from pipeline.errors import InputError
    from pipeline.steps import run
    from schemas.table import take
    from twin.morning import note_retractions

    if not options.visit and not options.source:
        raise InputError("retract: name a visit (--visit) or DIASources (--source)")
    sources, forced = night.store.table("DiaSource"), night.store.table("DiaForcedSource")
    chosen = [np.isin(rows["visit"], options.visit) & ((rows["detector"] == options.detector)
                                                       if options.detector is not None else True)
              for rows in (sources, forced)]
    missing = set(options.source) - set(sources["diaSourceId"].tolist())
    if missing or not (options.source or chosen[0].any() or chosen[1].any()):
        what = f"DIASource {min(missing)}" if missing else f"DIASource of visit {options.visit[0]}"
        raise InputError(f"retract: no {what} in the store")
    sources = take(sources, chosen[0] | np.isin(sources["diaSourceId"], options.source))
    night.journal.note(night.day_obs, "retract", "began", night.ports.clock(), {"reason": options.reason})
    done = run(retract(night.store, night.ports.clock, sources, take(forced, chosen[1]), options.reason, night.config,
                       partial(note_retractions, beside.retractions)))
    night.journal.note(night.day_obs, "retract", "ended", night.ports.clock(),
                       {"reason": options.reason, "sources": done.sources, "forced": done.forced,
                        "closed": done.closed, "changed": done.changed})
    return (f"withdrew {done.sources} DIASources and {done.forced} forced points; {done.closed} DIAObjects closed, "
            f"{done.changed} computed again: {options.reason}")
