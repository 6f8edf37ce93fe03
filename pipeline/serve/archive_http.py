"""The alert archive's HTTP face, with the paths of Rubin's alert_database_server, and cutouts as pictures.

    GET /v1/health
    GET /v1/alerts/{id}                               the message as it was archived, or as Avro file or JSON
    GET /v1/alerts/{id}/cutouts/{kind}.png | .fits    kind: difference, science, template
    GET /v1/schemas/{id}

Ids are numbers before they are anything else; errors are one line of JSON, {"detail": "..."}. The description is at
/openapi.json; there is no page of it, since that would load scripts from elsewhere.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from pipeline.alerts.read import read_packet, schema_id, to_container
from pipeline.errors import PacketError, RetriableError
from pipeline.serve.archive import Archive, ArchiveError, schema_key
from pipeline.serve.messages import MAX_ID
from pipeline.serve.pictures import picture

HOST: Final = "127.0.0.1"
PORT: Final = 8080
WIRE: Final = "application/octet-stream"
CONTAINER: Final = "application/avro"
JSON: Final = "application/json"
FITS: Final = "application/fits"         # RFC 4047
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class Form(StrEnum):
    """How an alert is given."""

    wire = "wire"
    avro = "avro"
    json = "json"


class Kind(StrEnum):
    """The three cutouts."""

    difference = "difference"
    science = "science"
    template = "template"


class Health(BaseModel):
    """The service answers."""

    status: str = "ok"


class Problem(BaseModel):
    """What went wrong, in one line."""

    detail: str


_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": Problem, "description": "It is not in the archive"},
    422: {"model": Problem, "description": "The id or another value is not one"},
    500: {"model": Problem, "description": "What the archive holds cannot be read"},
    503: {"model": Problem, "description": "The archive's store does not answer"}}
AlertId = Annotated[str, Path(alias="id", description="diaSourceId, a whole number", pattern="^[0-9]+$",
                              examples=["170055002004914266"])]
SchemaId = Annotated[str, Path(alias="id", description="schema id: 1101 is version 11.1", examples=["1101"])]


def make_app(archive: Archive) -> FastAPI:
    """The application over an archive."""
    app = FastAPI(title="Alert archive", version="1", docs_url=None, redoc_url=None,
                  description="Alert packets by diaSourceId, as they came, and the schemas they were written with.")
    _add_problems(app)

    @app.get("/v1/health", summary="Whether the service answers")
    def health() -> Health:
        return Health()

    @app.get("/v1/alerts/{id}", summary="An alert", response_class=Response, responses=_PROBLEMS | {
        200: {"description": "The alert: by default the message as archived, in Confluent's wire format",
              "content": {WIRE: {}, CONTAINER: {}, JSON: {}}}})
    def alert(request: Request, identifier: AlertId, form: Annotated[Form | None, Query(
            alias="format", description="goes before the Accept header")] = None) -> Response:
        packet = _packet(archive, identifier)
        return _alert(packet, form or _wanted(request.headers.get("accept", "")))

    @app.get("/v1/alerts/{id}/cutouts/{kind}.fits", summary="A cutout as the alert holds it", response_class=Response,
             responses=_PROBLEMS | {200: {"description": "FITS", "content": {FITS: {}}}})
    def cutout_fits(identifier: AlertId, kind: Kind) -> Response:
        return Response(_cutout(archive, identifier, kind), media_type=FITS)

    @app.get("/v1/alerts/{id}/cutouts/{kind}.png", summary="A cutout to look at: North is not up, row 0 is below",
             response_class=Response, responses=_PROBLEMS | {200: {"description": "PNG", "content": {"image/png": {}}}})
    def cutout_png(identifier: AlertId, kind: Kind) -> Response:
        return Response(picture(_cutout(archive, identifier, kind)), media_type="image/png")

    @app.get("/v1/schemas/{id}", summary="An Avro schema", response_class=Response,
             responses=_PROBLEMS | {200: {"description": "The schema", "content": {JSON: {}}}})
    def schema(identifier: SchemaId) -> Response:
        number = _number("schema id", identifier, 2**31 - 1)
        found = archive.schema(number)
        if found is None:
            raise HTTPException(404, f"schema {number} is not in the archive ({schema_key(number)})")
        return Response(found, media_type=JSON)

    return app


def serve(archive: Archive, *, host: str = HOST, port: int = PORT) -> None:
    """Answer until interrupted."""
    import uvicorn

    uvicorn.run(make_app(archive), host=host, port=port, log_level="info", server_header=False)


def _add_problems(app: FastAPI) -> None:
    """One line for everything that can go wrong."""
    def said(status: int) -> Any:
        def answer(_: Request, error: Exception) -> JSONResponse:
            return JSONResponse({"detail": " ".join(str(error).split())}, status)
        return answer

    app.add_exception_handler(ArchiveError, said(500))
    app.add_exception_handler(PacketError, said(500))
    app.add_exception_handler(RetriableError, said(503))

    @app.exception_handler(RequestValidationError)
    def refused(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = " ".join(str(part) for part in first["loc"])
        return JSONResponse({"detail": f"{place} {_short(first.get('input'))}: {first['msg']}"}, 422)


def _number(what: str, text: str, largest: int, least: int = 0) -> int:
    """An id as a number; only the one way to write it is taken."""
    if _NUMBER.fullmatch(text) and least <= int(text) <= largest:
        return int(text)
    raise HTTPException(422, f"{what} {_short(text)}: expected a whole number from {least} to {largest}")


def _packet(archive: Archive, text: str) -> bytes:
    number = _number("alert id", text, MAX_ID, 1)
    packet = archive.packet(number)
    if packet is None:
        raise HTTPException(404, f"alert {number} is not in the archive")
    return packet


def _alert(packet: bytes, form: Form) -> Response:
    headers = {"X-Schema-Id": str(schema_id(packet)), "Vary": "Accept"}
    match form:
        case Form.json:
            return Response(msgspec.json.encode(read_packet(packet)), media_type=JSON, headers=headers)
        case Form.avro:
            return Response(to_container([packet]), media_type=CONTAINER, headers=headers)
        case _:
            return Response(packet, media_type=WIRE, headers=headers)


def _wanted(accept: str) -> Form:
    """The form that an Accept header likes best; the wire format if it does not care."""
    best, form = 0.0, Form.wire
    for entry in accept.split(","):
        kind, _, rest = entry.partition(";")
        found = {WIRE: Form.wire, CONTAINER: Form.avro, JSON: Form.json}.get(kind.strip().lower())
        weight = re.search(r"\bq=([01](?:\.[0-9]{0,3})?)", rest)
        quality = float(weight[1]) if weight else 1.0
        if found is not None and quality > best:
            best, form = quality, found
    return form


def _cutout(archive: Archive, text: str, kind: Kind) -> bytes:
    content = read_packet(_packet(archive, text)).get(f"cutout{kind.capitalize()}")
    if isinstance(content, dict):                  # before schema 7: a file name and its content
        content = content.get("stampData")
    if not content:
        raise HTTPException(404, f"alert {text} has no {kind} cutout")
    return bytes(content)


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
