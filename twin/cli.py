"""The command `alert-twin`; subcommands import inside, so that each starts without the libraries of the others."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.progress import TaskID

    from twin.cache import Cache
    from twin.scenario import Scenario

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[_variable] = "1"   # before NumPy is imported: results must not depend on the number of cores

USAGE_ERROR = 2

COMPARE = """\
BASE and HEAD are each one of

  .  or  HEAD              the present code as it lies there, uncommitted changes and all
  KEY=VALUE[,KEY=VALUE]    the present code with other settings: pipeline.detect.threshold=5.3
  FILE.toml                the present code with the [pipeline] and [platform] settings of a file
  REVISION                 a commit, branch or tag, in a worktree of its own: HEAD~1, main, v1.2
  tree:FOLDER              the code in another folder, committed or not
  REVISION:SETTINGS        one of these two with settings: main:pipeline.detect.threshold=5.3
  FOLDER                   a run folder, or a folder of run folders, one per seed
  baseline:NAME            a baseline that `alert-twin baseline` recorded, by folder or name
  catalog:FILE             the detections of any other program (see alert-twin score)

A folder goes before a revision of the same name; run:FOLDER and rev:NAME say which is meant (rev:HEAD: as committed).

exit code: 0 no regression, 1 something is worse, 2 the sides cannot be compared, 3 not decided
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; errors a user can mend end in one line and exit code 2."""
    from pipeline.errors import InputError, PipelineError

    options = _parsed(arguments)
    try:
        code: int = options.call(options)
        sys.stdout.flush()
    except (InputError, PipelineError) as error:
        return _complain(str(error))
    except BrokenPipeError:     # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())     # nothing is left to flush into the pipe
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _complain(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _complain("interrupted", code=130)
    return code


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; KEY=VALUE may stand anywhere behind a scenario that takes them."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    takes = options.command in ("run", "prefill", "sky", "stream", "sweep")
    if rest and not (takes and all("=" in word and not word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return options


def _complain(message: str, code: int = USAGE_ERROR) -> int:
    print(f"alert-twin: {' '.join(message.split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    from twin.commands import add_all

    parser = argparse.ArgumentParser(prog="alert-twin", description="A digital twin of Rubin's Alert Production.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="simulate a night from a scenario file into a run folder")
    run.add_argument("scenario", type=Path)
    run.add_argument("--out", type=Path, required=True, help="the run folder; it must not exist or be empty")
    run.add_argument("--seed", type=int, help="instead of the scenario's")
    run.add_argument("--processes", type=_at_least_one, default=os.cpu_count() or 1, help="operating-system processes")
    run.add_argument("--keep", choices=["images"], help="images: write calibrated, difference and template FITS")
    run.add_argument("--sink", default="", help="where alerts go instead of files: kafka://host:port/alerts-simulated")
    run.add_argument("--any-topic", action="store_true", help="let simulated alerts go to a topic of another name")
    run.add_argument("--cache", nargs="?", const="", metavar="FOLDER", help="draw and measure nothing twice; without a "
                     "FOLDER $ALERT_TWIN_CACHE, which alone is enough, or ~/.cache/rubin-alert-twin")
    run.add_argument("--seeds", **SEEDS, help="several nights, each into OUT/seed_SEED, at once: 1 2 3, or 1-6")
    run.add_argument("--lean", action="store_true", help="keep the tables alone: no packets, no database")
    run.add_argument("--past", type=Path, metavar="DIR", help="begin with the objects and their history that "
                     "`alert-twin prefill` drew")
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    run.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. pipeline.detect.threshold=5.5")
    run.set_defaults(call=_run)

    sky = commands.add_parser("sky", help="draw a scenario's sky, visits, light curves, PSF and artifacts, and count "
                              "its sources")
    sky.add_argument("scenario", type=Path)
    sky.add_argument("--out", type=Path, required=True, help="folder of the pictures; it must not exist or be empty")
    sky.add_argument("--seed", type=int, help="instead of the scenario's")
    sky.add_argument("--every-artifact", action="store_true", help="stamps of those that the scenario has not, too")
    sky.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. simulation.field.ra=150.1")
    sky.set_defaults(call=_sky)

    compare = commands.add_parser(
        "compare", help="which of two pipelines is better, where, and how sure are we", epilog=COMPARE,
        description="Run or read two sides of a test, pair them source by source, and judge the difference.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    compare.add_argument("base", metavar="BASE", help="what was: see below")
    compare.add_argument("head", metavar="HEAD", help="what is to be judged: see below")
    compare.add_argument("--scenario", metavar="FILE", help="the test: a scenario file, the name of a shipped one, or "
                         "real:FOLDER for injections into the DECam exposures of a folder; default: that of a recorded "
                         "side, else regression.toml")
    compare.add_argument("--seeds", **SEEDS, help="nights of the test: 1 2 3, or 1-6; default: those of a recorded "
                         "side, else the scenario's")
    compare.add_argument("--until-decided", action="store_true", help="add nights until all that decides is decided")
    compare.add_argument("--budget", type=_at_least_one, metavar="N", help="nights at most; default: the scenario's")
    compare.add_argument("--out", type=Path, help="folder of the page (comparison.html), JSON, Markdown and JUnit XML; "
                         "new or empty; default: the next free runs/compare-N")
    for kind, what in (("html", "page"), ("json", "JSON"), ("markdown", "Markdown"), ("junit", "JUnit XML")):
        compare.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write the {what} here as well")
    compare.add_argument("--keep-runs", action="store_true", help="keep the run folders in the folder of the page")
    compare.add_argument("--no-times", action="store_true", help="do not measure CPU time and memory side by side")
    compare.add_argument("--power", action="store_true", help="say how small a change of what decides would be found")
    compare.add_argument("--processes", type=_at_least_one, default=os.cpu_count() or 1)
    compare.add_argument("--quiet", action="store_true", help="no word on what is being done")
    compare.set_defaults(call=_compare)

    prefill = commands.add_parser("prefill", help="draw the months before a scenario's night into a prompt store")
    prefill.add_argument("scenario", type=Path)
    prefill.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. simulation.past.nights=20")
    prefill.add_argument("--out", type=Path, required=True, help="the past's folder, for `run --past`; new or empty")
    prefill.add_argument("--seed", type=int, help="instead of the scenario's")
    prefill.add_argument("--quiet", action="store_true", help="no progress bar")
    prefill.set_defaults(call=_prefill)

    baseline = commands.add_parser("baseline", help="record what the present code makes of a scenario")
    baseline.add_argument("scenario", type=Path)
    baseline.add_argument("--seeds", **SEEDS, help="nights: 1 2 3, or 1-6; default: the scenario's")
    baseline.add_argument("--out", type=Path, required=True, help="the baseline's folder; new or empty")
    baseline.add_argument("--processes", type=_at_least_one, default=os.cpu_count() or 1)
    baseline.add_argument("--quiet", action="store_true", help="no word on what is being done")
    baseline.set_defaults(call=_baseline)

    history = commands.add_parser("history", help="draw each metric over recorded commits and mark the steps")
    history.add_argument("baselines", type=Path, help="a folder of baselines, one per commit")
    history.add_argument("--out", type=Path, help="folder of history.html, .png, .json; default: with the baselines")
    history.set_defaults(call=_history)

    bisect = commands.add_parser("bisect", help="find the commit that made a metric worse, by decided verdicts only")
    bisect.add_argument("good", metavar="GOOD", help="a revision before it")
    bisect.add_argument("bad", metavar="BAD", help="a revision after it")
    bisect.add_argument("--metric", required=True, metavar="KEY", help="e.g. completeness_raw_5.5_8")
    bisect.add_argument("--scenario", metavar="FILE", help="the test; default: the project's own")
    bisect.add_argument("--seeds", **SEEDS, help="nights to begin with")
    bisect.add_argument("--budget", type=_at_least_one, metavar="N", help="nights at most; default: the scenario's")
    bisect.add_argument("--processes", type=_at_least_one, default=os.cpu_count() or 1)
    bisect.set_defaults(call=_bisect)

    cache = commands.add_parser("cache", help="show, bound or clear what runs with --cache keep")
    cache.add_argument("folder", type=Path, nargs="?", help="instead of $ALERT_TWIN_CACHE or ~/.cache/rubin-alert-twin")
    cache.add_argument("--limit", metavar="SIZE", help="the most that it may hold from now on, e.g. 5GB")
    cache.add_argument("--clear", action="store_true", help="remove everything in it")
    cache.set_defaults(call=_cache)

    report = commands.add_parser("report", help="write report.html and report.json of a run folder")
    report.add_argument("run", type=Path)
    report.set_defaults(call=_report)

    process = commands.add_parser("process", help="run FITS files through the pipeline: production mode")
    process.add_argument("science", type=Path, nargs="+", help="exposures, or folders of them")
    process.add_argument("--out", type=Path, required=True, help="the run folder; it must not exist or be empty")
    process.add_argument("--config", type=Path, help="site config: headers, references, pipeline settings (TOML)")
    process.add_argument("--template", type=Path, help="one template for all, made by us or an image")
    process.add_argument("--template-from", type=Path, nargs="+", default=[], help="exposures to coadd to a template")
    process.add_argument("--inject", type=int, default=0, metavar="N", help="sources to inject into each exposure")
    process.add_argument("--seed", type=int, help="of the injections")
    process.set_defaults(call=_process)

    template = commands.add_parser("template", help="coadd the best of some exposures to a template for `process`")
    template.add_argument("inputs", type=Path, nargs="+", metavar="INPUT",
                          help="a run folder, a bundle, or FITS exposures and folders of them")
    template.add_argument("--out", type=Path, required=True, metavar="FILE", help="the template; it must not exist")
    template.add_argument("--band", default="", choices=list("ugrizy"), help="where the inputs have several")
    template.add_argument("--like", type=Path, metavar="FITS", help="an exposure whose grid the template gets; "
                          "default: one round all inputs")
    template.add_argument("--incremental", action="store_true", help="at most the 12 sharpest of the clear visits, "
                          "instead of the best third")
    template.add_argument("--config", type=Path, help="site config: headers, references, pipeline settings (TOML)")
    template.set_defaults(call=_template)

    bundle = commands.add_parser("bundle", help="write a run's visits as FITS files that `process` reads")
    bundle.add_argument("run", type=Path)
    bundle.add_argument("--out", type=Path, required=True, help="the bundle's folder; it must not exist or be empty")
    bundle.add_argument("--after", type=int, default=0, metavar="N", help="leave out the first N visits, keep the "
                        "objects and history that they made")
    bundle.set_defaults(call=_bundle)

    export = commands.add_parser("export", help="write a run as FITS files for other programs, and their answer sheet")
    export.add_argument("run", type=Path)
    export.add_argument("--out", type=Path, required=True, help="the folder; it must not exist or be empty")
    export.set_defaults(call=_export)

    score = commands.add_parser("score", help="lay another program's detections against a run's truth")
    score.add_argument("run", type=Path)
    score.add_argument("file", type=Path, help="Parquet, CSV, FITS table or Avro alerts, or a folder of them")
    score.add_argument("--out", type=Path, help="the run folder to write; FILE-scored beside the file without it")
    score.set_defaults(call=_score)

    accept = commands.add_parser("accept", help="print the acceptance figures")
    accept.add_argument("--seeds", **SEEDS, required=True)
    accept.add_argument("--out", type=Path, required=True, help="where its runs are kept; new or empty")
    accept.add_argument("--real", type=Path, help="folder of the DECam exposures of the real field")
    accept.add_argument("--processes", type=_at_least_one, default=os.cpu_count() or 1)
    accept.set_defaults(call=_accept)

    train = commands.add_parser("train", help="train the reliability model on simulated nights")
    train.add_argument("scenario", type=Path)
    train.add_argument("--seeds", **SEEDS, required=True, help="every fourth is held back")
    train.add_argument("--out", type=Path, required=True, help="the ONNX file to write")
    train.add_argument("--false-weight", type=float, default=1.0, help="of a false detection against a real one")
    train.add_argument("--processes", type=_at_least_one, default=os.cpu_count() or 1)
    train.set_defaults(call=_train)

    costs = commands.add_parser("costs", help="measure what Steps cost on this machine and write the table")
    costs.add_argument("--scenario", type=Path, help="instead of the shipped costs.toml")
    costs.add_argument("--out", type=Path, required=True, help="the table to write")
    costs.add_argument("--runs", type=Path, help="where its run folders go; kept")
    costs.add_argument("--name", default="", help="the machine's name in the table")
    costs.set_defaults(call=_costs)

    cadence = commands.add_parser("cadence", help="let the scheduler survey some nights and write an OpSim database")
    length = cadence.add_mutually_exclusive_group()
    length.add_argument("--nights", type=_at_least_one, metavar="N", help="default: 365")
    length.add_argument("--years", type=_at_least_one, metavar="N")
    cadence.add_argument("--seed", type=_seed, default=1)
    cadence.add_argument("--out", type=Path, required=True, metavar="FILE", help="the database; it must not exist")
    cadence.add_argument("--quiet", action="store_true", help="no progress bar")
    cadence.set_defaults(call=_cadence)

    validate = commands.add_parser("validate-cadence", help="lay a survey's figures beside the published baseline's",
                                   description="exit code: 0 all within their bars, 1 some not, 2 nothing to compare")
    validate.add_argument("database", type=Path, nargs="?", metavar="FILE", help="an OpSim database of any generation; "
                          "default: a year of our scheduler")
    validate.add_argument("--seed", type=_seed, default=1, help="of our scheduler")
    validate.add_argument("--as-published", action="store_true", help="FILE's depths are of the throughputs that the "
                          "v2.0 baseline had; without it they are taken for today's, and brought to those")
    validate.add_argument("--plot", type=Path, metavar="FILE", help="draw the distributions, e.g. cadence.png")
    validate.add_argument("--quiet", action="store_true", help="no progress bar")
    validate.set_defaults(call=_validate_cadence)
    add_all(commands)
    return parser


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {value}")
    return value


def _seeds(text: str) -> tuple[int, ...]:
    """The seeds of `3` or `1-6`."""
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"expected a seed or a range of seeds like 1-6, got {text!r}")
    return tuple(range(int(first), int(last) + 1))


class _Seeds(argparse.Action):
    """Seeds and ranges of them, as one tuple; each counts once."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:
        setattr(namespace, self.dest, tuple(dict.fromkeys(seed for some in values for seed in some)))


SEEDS: Final[Any] = {"type": _seeds, "nargs": "+", "action": _Seeds, "default": (), "metavar": "SEED"}


def _run(options: argparse.Namespace) -> int:
    from pipeline.errors import InputError
    from twin.scenario import read_scenario

    if options.cache and "=" in options.cache:     # `--cache KEY=VALUE`: an override behind it
        options.overrides.append(options.cache)
        options.cache = ""
    if options.seeds and (options.seed is not None or options.keep or options.past):
        raise InputError("--seeds goes neither with --seed, nor with --keep, nor with --past")
    if options.past and options.lean:
        raise InputError("--lean keeps no database, --past begins with one")
    scenarios = [read_scenario(options.scenario, options.overrides, seed) for seed in options.seeds or [options.seed]]
    if scenarios[0].live:
        return _run_live(options, scenarios)
    if scenarios[0].fidelity == "counts":
        return _run_counts(options, scenarios)
    places = {"beside": options.scenario.parent, "processes": options.processes, "cache": _opened(options.cache),
              "sink": options.sink or ("memory:" if options.lean else ""), "store": "memory:" if options.lean else ""}
    with _ending(), _progress(options.quiet) as progress:
        if options.seeds:
            from twin.nights import run_nights

            outcomes = run_nights(scenarios, options.out, any_topic=options.any_topic, progress=progress, **places)
        else:
            from twin.night import run_night

            outcomes = [run_night(scenarios[0], options.out, keep_images=options.keep == "images",
                                  any_topic=options.any_topic, progress=progress, past=options.past, **places)]
    print(*outcomes, sep="\n")
    return 0


def _run_counts(options: argparse.Namespace, scenarios: "Sequence[Scenario]") -> int:
    """Nights of numbers alone; 1 where one is not what its scenario expects."""
    from pipeline.errors import InputError
    from twin.counts_night import run_counts

    given = {"--keep": options.keep, "--sink": options.sink, "--past": options.past, "--lean": options.lean}
    for name in (name for name, value in given.items() if value):
        raise InputError(f"{options.scenario}: a night at counts fidelity has no sources; {name} does not go with it")
    outcomes = []
    with _ending(), _progress(options.quiet) as progress:
        for scenario in scenarios:
            folder = options.out / f"seed_{scenario.seed}" if options.seeds else options.out
            outcomes.append(run_counts(scenario, folder, beside=options.scenario.parent, processes=options.processes,
                                       progress=progress))
    print(*outcomes, sep="\n")
    return 1 if any(outcome.missed for outcome in outcomes) else 0


def _run_live(options: argparse.Namespace, scenarios: "Sequence[Scenario]") -> int:
    """Nights on the platform with live detectors; 1 where one is not what its scenario expects."""
    from pipeline.errors import InputError
    from twin.live_night import Place, run_live

    if options.past:
        raise InputError(f"{options.scenario}: --past does not go with a night on the platform")
    outcomes = []
    with _ending(), _progress(options.quiet) as progress:
        for scenario in scenarios:
            folder = options.out / f"seed_{scenario.seed}" if options.seeds else options.out
            place = Place(folder, options.sink or ("memory:" if options.lean else ""),
                          "memory:" if options.lean else "", _opened(options.cache), options.keep == "images",
                          options.any_topic)
            outcomes.append(run_live(scenario, place, beside=options.scenario.parent, processes=options.processes,
                                     progress=progress))
    print(*outcomes, sep="\n")
    return 1 if any(outcome.missed for outcome in outcomes) else 0


def _prefill(options: argparse.Namespace) -> int:
    from twin.prefill import prefill
    from twin.scenario import read_scenario

    scenario = read_scenario(options.scenario, options.overrides, options.seed)
    with _ending(), _progress(options.quiet) as progress:
        made = prefill(scenario, options.out, progress)
    print(made)
    return 0


def _sky(options: argparse.Namespace) -> int:
    from twin.scenario import read_scenario
    from twin.sky import draw_sky

    print(draw_sky(read_scenario(options.scenario, options.overrides, options.seed), options.out,
                   every_artifact=options.every_artifact), end="")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from twin.compare import Question, Wanted, report

    question = Question(options.base, options.head, options.scenario, options.seeds,
                        until_decided=options.until_decided, budget=options.budget, times=not options.no_times,
                        processes=options.processes)
    wanted = Wanted(options.out, {kind: path for kind in ("html", "json", "markdown", "junit")
                                  if (path := getattr(options, kind)) is not None}, options.keep_runs, options.power)
    return report(question, wanted, print, _teller(options.quiet))


def _history(options: argparse.Namespace) -> int:
    from twin.trend import history

    print(history(options.baselines, options.out or options.baselines))
    return 0


def _bisect(options: argparse.Namespace) -> int:
    from pipeline.errors import InputError
    from reports.store import StoreError
    from twin.bisect import bisect
    from twin.compare import Question

    question = Question(options.good, options.bad, options.scenario, options.seeds,
                        budget=options.budget, processes=options.processes)
    try:
        found = bisect(options.good, options.bad, options.metric, question, lambda line: print(line, file=sys.stderr))
    except StoreError as error:
        raise InputError(str(error)) from None
    print(found)
    return 0 if not found.between else 3


def _baseline(options: argparse.Namespace) -> int:
    from pipeline.errors import InputError
    from reports.store import StoreError
    from twin.baseline import record

    try:
        print(record(options.scenario, options.seeds, options.out, processes=options.processes,
                     say=_teller(options.quiet)))
    except StoreError as error:
        raise InputError(str(error)) from None
    return 0


def _teller(quiet: bool) -> Callable[[str], None]:
    """Words on what is being done, beside the answer."""
    return (lambda line: None) if quiet else lambda line: print(line, file=sys.stderr, flush=True)


def _opened(folder: str | None) -> "Cache | None":
    """The cache that a run is told to use, by its option or by the environment."""
    from twin.cache import FOLDER_VARIABLE, Cache

    if folder is None and not os.environ.get(FOLDER_VARIABLE):
        return None
    return Cache.open(Path(folder) if folder else None)


def _cache(options: argparse.Namespace) -> int:
    from twin.cache import Cache, described, parse_bytes

    limit = None if options.limit is None else parse_bytes(options.limit)
    cache = Cache.open(options.folder)
    cache.sweep()
    if options.clear:
        print(f"{cache.clear()} entries removed")
    if limit is not None:
        cache = cache.keep_limit(limit)
    print(described(cache))
    return 0


@contextmanager
def _ending() -> Iterator[None]:
    """A request to end is an exception meanwhile, so that what is half made is taken away."""
    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar per kind of work on the terminal; nothing when asked to be quiet."""
    if quiet:
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bars: dict[str, TaskID] = {}
    progress = Progress(TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                        console=Console(stderr=True))

    def show(what: str, done: int, total: int) -> None:
        progress.start()   # here, so that a command refused at once prints its one line alone
        if what not in bars:
            bars[what] = progress.add_task(what, total=total)
        progress.update(bars[what], completed=done)

    try:
        yield show
    finally:
        if bars:
            progress.stop()


def _report(options: argparse.Namespace) -> int:
    from pipeline.errors import InputError
    from reports.render import render
    from reports.state import unfinished
    from reports.store import StoreError

    try:
        print(render(options.run))
        if part := unfinished(options.run):
            print(f"alert-twin: {options.run}: {part}", file=sys.stderr)
    except StoreError as error:
        raise InputError(str(error)) from None
    return 0


def _process(options: argparse.Namespace) -> int:
    from twin.process import process_files

    print(process_files(options.science, options.out, config=options.config, template=options.template,
                        template_from=options.template_from, inject=options.inject, seed=options.seed))
    return 0


def _template(options: argparse.Namespace) -> int:
    from twin.template import write_template_file

    print(write_template_file(options.inputs, options.out, config=options.config, band=options.band, like=options.like,
                              incremental=options.incremental))
    return 0


def _bundle(options: argparse.Namespace) -> int:
    from twin.bundle import write_bundle

    print(write_bundle(options.run, options.out, after=options.after))
    return 0


def _export(options: argparse.Namespace) -> int:
    from twin.export import export_run

    print(export_run(options.run, options.out))
    return 0


def _score(options: argparse.Namespace) -> int:
    from reports.render import render
    from twin.score import score_catalog, summary

    out = options.out or options.file.with_name(f"{options.file.stem}-scored")
    score_catalog(options.run, options.file, out)
    print(summary(out))
    print(render(out))
    return 0


def _accept(options: argparse.Namespace) -> int:
    from twin.accept import accept

    return 0 if accept(options.seeds, options.out, processes=options.processes, real=options.real) else 1


def _train(options: argparse.Namespace) -> int:
    from twin.scenario import read_scenario
    from twin.train import train

    print(train(read_scenario(options.scenario), options.seeds, options.out, processes=options.processes,
                false_weight=options.false_weight))
    return 0


def _costs(options: argparse.Namespace) -> int:
    from twin.measure_costs import measure_costs

    print(measure_costs(options.scenario, options.out, runs=options.runs, name=options.name,
                        say=lambda line: print(line, file=sys.stderr)))
    return 0


def _cadence(options: argparse.Namespace) -> int:
    from twin.cadence import BASELINE_NIGHTS, make

    nights = options.nights or BASELINE_NIGHTS * (options.years or 1)
    with _progress(options.quiet) as progress:
        said = make(nights, options.seed, options.out, progress)
    print(said)
    return 0


def _validate_cadence(options: argparse.Namespace) -> int:
    from twin.cadence import validate

    with _progress(options.quiet) as progress:
        said, passed = validate(options.database, options.seed, as_published=options.as_published, plot=options.plot,
                                progress=progress)
    print(said)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
