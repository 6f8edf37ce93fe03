"""`alert-twin schemas`: the alert schemas in a registry, or a registry of them."""

import argparse
from typing import TYPE_CHECKING

from twin.commands import port

if TYPE_CHECKING:
    from twin.commands import Commands


def add(commands: "Commands") -> None:
    """Declare it."""
    schemas = commands.add_parser("schemas", help="put the alert schemas into a schema registry, or serve them as one")
    what = schemas.add_subparsers(dest="what", required=True, metavar="WHAT")
    register = what.add_parser("register", help="put every packaged version into a registry under the packets' ids")
    register.add_argument("url", help="http://host:8081 of a registry with mode IMPORT, or Apicurio's own protocol, "
                          "http://host:8080/apis/registry/v2")
    register.set_defaults(call=_register)
    serve = what.add_parser("serve", help="a read-only registry over HTTP, until interrupted")
    serve.add_argument("--port", type=port, default=8081)
    serve.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
    serve.set_defaults(call=_serve)


def _register(options: argparse.Namespace) -> int:
    from pipeline.serve.register import register

    print(register(options.url))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from pipeline.serve.registry import listen, serve

    with listen(options.host, options.port) as listener:
        print(f"alert schemas at http://{options.host}:{listener.getsockname()[1]}", flush=True)
        serve(listener)
    return 0
