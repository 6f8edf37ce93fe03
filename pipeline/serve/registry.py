"""A schema registry of the packaged alert schemas, to be read as Confluent's is: GET only, as Rubin's public one.

    GET /schemas/types, /schemas/ids/{id}, .../schema, .../subjects, .../versions
    GET /subjects, /subjects/{subject}/versions, /subjects/{subject}/versions/{number or latest}, .../schema
    GET /config, /config/{subject}, /mode, /mode/{subject}, /contexts

Everything else is 404 or, for a method that would write, 405. Errors have Confluent's form and codes.
"""

import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pipeline.alerts.versions import AlertSchema, SubjectVersion, packaged, subjects
from pipeline.errors import InputError

HOST: Final = "127.0.0.1"
PORT: Final = 8081                   # where registries listen by custom
MEDIA: Final = "application/vnd.schemaregistry.v1+json"
NO_SUBJECT, NO_VERSION, NO_SCHEMA, BAD_VERSION = 40401, 40402, 40403, 42202


class RegistryError(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class _Answer(JSONResponse):
    media_type = MEDIA


def make_app() -> FastAPI:
    """The application."""
    app = FastAPI(title="Alert schemas", docs_url=None, redoc_url=None, openapi_url=None,
                  default_response_class=_Answer)
    _add_schemas(app)
    _add_subjects(app)
    _add_settings(app)

    @app.exception_handler(RegistryError)
    async def refused(request: Request, error: RegistryError) -> Response:
        return _Answer({"error_code": error.code, "message": error.message}, error.code // 100 if error.code > 999
                       else error.code)

    @app.exception_handler(HTTPException)
    async def absent(request: Request, error: HTTPException) -> Response:
        return _Answer({"error_code": error.status_code, "message": f"HTTP {error.status_code} {error.detail}"},
                       error.status_code)

    @app.middleware("http")
    async def read_only(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method in ("GET", "HEAD"):
            return await go_on(request)
        return _Answer({"error_code": 405, "message": f"{request.method}: this registry is read-only"}, 405,
                       {"Allow": "GET, HEAD"})

    return app


def listen(host: str = HOST, port: int = PORT) -> socket.socket:
    """A socket to serve on; InputError where nobody may listen there."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise InputError(f"schema registry: cannot listen on {host}:{port}: {error.strerror}") from None


def serve(listener: socket.socket) -> None:
    """Serve until told to end."""
    uvicorn.Server(uvicorn.Config(make_app(), log_level="warning", access_log=False)).run([listener])


def _add_schemas(app: FastAPI) -> None:
    @app.get("/")
    def root() -> dict[str, Any]:
        return {}

    @app.get("/schemas/types")
    def types() -> list[str]:
        return ["AVRO"]

    @app.get("/schemas/ids/{number}")
    def by_id(number: str) -> dict[str, Any]:
        return {"schema": _schema(number).text}

    @app.get("/schemas/ids/{number}/schema")
    def text_by_id(number: str) -> Any:
        return json.loads(_schema(number).text)

    @app.get("/schemas/ids/{number}/subjects")
    def subjects_by_id(number: str) -> list[str]:
        found = _schema(number)
        return [one.subject for one in subjects() if one.schema is found]

    @app.get("/schemas/ids/{number}/versions")
    def versions_by_id(number: str) -> list[dict[str, Any]]:
        found = _schema(number)
        return [{"subject": one.subject, "version": one.number} for one in subjects() if one.schema is found]


def _add_subjects(app: FastAPI) -> None:
    @app.get("/subjects")
    def names() -> list[str]:
        return list(dict.fromkeys(one.subject for one in subjects()))

    @app.get("/subjects/{subject}/versions")
    def versions(subject: str) -> list[int]:
        return [one.number for one in _subject(subject)]

    @app.get("/subjects/{subject}/versions/{number}")
    def version(subject: str, number: str) -> dict[str, Any]:
        found = _version(subject, number)
        return {"subject": found.subject, "version": found.number, "id": found.schema.id, "schema": found.schema.text}

    @app.get("/subjects/{subject}/versions/{number}/schema")
    def text(subject: str, number: str) -> Any:
        return json.loads(_version(subject, number).schema.text)


def _add_settings(app: FastAPI) -> None:
    @app.get("/config")
    def config() -> dict[str, str]:
        return {"compatibilityLevel": "NONE"}

    @app.get("/config/{subject}")
    def config_of(subject: str) -> dict[str, str]:
        _subject(subject)
        return {"compatibilityLevel": "NONE"}

    @app.get("/mode")
    def mode() -> dict[str, str]:
        return {"mode": "READONLY"}

    @app.get("/mode/{subject}")
    def mode_of(subject: str) -> dict[str, str]:
        _subject(subject)
        return {"mode": "READONLY"}

    @app.get("/contexts")
    def contexts() -> list[str]:
        return ["."]


def _schema(number: str) -> AlertSchema:
    wanted = _integer(number)
    for schema in packaged():
        if schema.id == wanted:
            return schema
    raise RegistryError(NO_SCHEMA, f"Schema {number[:20]} not found")


def _subject(name: str) -> list[SubjectVersion]:
    found = [one for one in subjects() if one.subject == name]
    if not found:
        raise RegistryError(NO_SUBJECT, f"Subject '{name[:80]}' not found.")
    return found


def _version(name: str, number: str) -> SubjectVersion:
    found = _subject(name)
    if number in ("latest", "-1"):
        return found[-1]
    wanted = _integer(number)
    if wanted is None or wanted < 1:
        raise RegistryError(BAD_VERSION, f"The specified version '{number[:20]}' is not a valid version id. Allowed "
                            "values are between [1, 2^31-1] and the string \"latest\"")
    for one in found:
        if one.number == wanted:
            return one
    raise RegistryError(NO_VERSION, f"Version {wanted} not found.")


def _integer(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 11 else None
