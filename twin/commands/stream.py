"""`alert-twin stream`: a night on the wall clock, for brokers to subscribe to."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twin.commands import Commands


def add(commands: "Commands") -> None:
    """Declare it."""
    from twin.cli import _at_least_one

    stream = commands.add_parser(
        "stream", help="send a night's alerts to Kafka when the night sends them: a test stream for brokers",
        description="Ends with the night, or cleanly at an interrupt: the run folder is kept, with what was sent.")
    stream.add_argument("scenario", type=Path)
    where = stream.add_mutually_exclusive_group(required=True)
    where.add_argument("--kafka", metavar="HOST:PORT[,HOST:PORT]", help="brokers that have the topic alerts-simulated, "
                       "or a whole kafka://host:port/topic")
    where.add_argument("--sink", metavar="URL", help="any sink: file:FOLDER, memory:, kafka://host:port/topic")
    stream.add_argument("--out", type=Path, required=True, help="the run folder, with the truth; new or empty")
    stream.add_argument("--speed", type=float, default=1.0, help="simulated seconds in one of the wall clock")
    stream.add_argument("--repeat", type=float, nargs="?", const=float("inf"), default=1, metavar="NIGHTS",
                        help="go on with the night of the next seed and day, into OUT/seed_SEED; without a number "
                        "until it is interrupted")
    stream.add_argument("--now", type=float, nargs="?", const=10.0, metavar="MINUTES", help="move the night: its first "
                        "shutter opens so many minutes from now (10), time to make the templates")
    stream.add_argument("--duplicates", type=float, default=0.0, metavar="RATE", help="share of alerts sent twice")
    stream.add_argument("--reorder", type=float, default=0.0, metavar="RATE", help="share held back within the window")
    stream.add_argument("--window", type=float, default=30.0, metavar="SECONDS", help="of the night, of both (30)")
    stream.add_argument("--late", type=float, default=0.0, metavar="RATE", help="share sent late")
    stream.add_argument("--late-by", type=float, default=300.0, metavar="SECONDS", help="of the night (300)")
    stream.add_argument("--seed", type=int, help="instead of the scenario's")
    stream.add_argument("--processes", type=_at_least_one, default=os.cpu_count() or 1, help="that render images")
    stream.add_argument("--any-topic", action="store_true", help="let simulated alerts go to a topic of another name")
    stream.add_argument("--quiet", action="store_true", help="no word but the last line")
    stream.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. simulation.cadence.pairs=50")
    stream.set_defaults(call=_stream)


def _stream(options: argparse.Namespace) -> int:
    from twin.cli import _teller
    from twin.posting import Disorder
    from twin.scenario import read_scenario
    from twin.stream import Ending, Streaming, run_stream

    disorder = Disorder(options.duplicates, options.reorder, options.window, options.late, options.late_by)
    how = Streaming(options.speed, disorder, options.repeat, options.now)
    scenario = read_scenario(options.scenario, options.overrides, options.seed)
    say = _teller(options.quiet)
    ending = Ending()
    with ending.on_signals():
        for sent in run_stream(scenario, options.out, options.sink or _url(options.kafka), how, ending=ending,
                               beside=options.scenario.parent, processes=options.processes,
                               any_topic=options.any_topic, say=say):
            print(sent, flush=True)
    return 0


def _url(brokers: str) -> str:
    return brokers if "://" in brokers else f"kafka://{brokers}/alerts-simulated"
