"""`alert-twin archive ingest | serve`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from twin.commands import port
from twin.commands.consuming import add_stream

if TYPE_CHECKING:
    from twin.commands import Commands


def add(commands: Commands) -> None:
    """Declare it."""
    archive = commands.add_parser("archive", help="keep every alert of a stream, and give them out by id")
    actions = archive.add_subparsers(dest="action", required=True, metavar="ACTION")
    ingest = actions.add_parser("ingest", help="store the alerts of a Kafka topic")
    add_stream(ingest, "alert-twin-archive")
    ingest.add_argument("--store", required=True, help="a folder, or s3://bucket/prefix")
    ingest.set_defaults(call=_ingest)
    retry = actions.add_parser("retry", help="archive dead letters that can be read by now, as after an upgrade")
    retry.add_argument("folder", type=Path, help="of dead letters; what is archived is taken away")
    retry.add_argument("--store", required=True, help="a folder, or s3://bucket/prefix")
    retry.set_defaults(call=_retry)
    serve = actions.add_parser("serve", help="answer GET /v1/alerts/ID and others from an archive")
    serve.add_argument("--store", required=True, help="a folder, or s3://bucket/prefix")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; default: this machine alone")
    serve.add_argument("--port", type=port, default=8080)
    serve.set_defaults(call=_serve)


def _ingest(options: argparse.Namespace) -> int:
    from pipeline.serve.archive import Ingest, open_archive
    from twin.commands.consuming import run_consumer

    handler = Ingest(open_archive(options.store, create=True))
    try:
        tally = run_consumer(options, handler, default_dead=Path("dead-letters"))
    finally:
        handler.close()
    print(f"{tally.accepted} of {tally.received} messages archived in {options.store}, {tally.set_aside} set aside")
    return 0


def _retry(options: argparse.Namespace) -> int:
    from pipeline.serve.archive import open_archive, retry_letters

    stored, left = retry_letters(open_archive(options.store), options.folder)
    print(f"{stored} dead letters archived in {options.store}, {left} stay in {options.folder}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from pipeline.errors import InputError
    from pipeline.serve.archive import open_archive

    try:
        from pipeline.serve.archive_http import serve
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'rubin-alert-twin[serve]'") from None
    serve(open_archive(options.store), host=options.host, port=options.port)
    return 0
