"""Puts the packaged alert schemas into a registry under the ids that packets carry.

On a server of Confluent's protocol as Rubin's job does (alert_packet, syncAllSchemasToRegistry.py): delete the
subjects, mode IMPORT, every version with its id forced, mode READWRITE. A server that gives ids of its own is refused,
since no packet could be read with them. Apicurio's Confluent face is such a server; its own protocol (a URL that ends
in /apis/registry/v2) imports an archive and keeps ids.
"""

import io
import json
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote, urlsplit

from pipeline.alerts.versions import SubjectVersion, subjects
from pipeline.errors import InputError

MEDIA: Final = "application/vnd.schemaregistry.v1+json"
APICURIO: Final = "/apis/registry/v2"
TIMEOUT_S: Final = 15.0


def register(url: str) -> str:
    """Put all versions into the registry at `url`; a line that says what came of it, or InputError in one line."""
    url = url.rstrip("/")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise InputError(f"schema registry {url!r}: expected http://host:port")
    server = _Server(url)
    if urlsplit(url).path.endswith(APICURIO):
        _import_archive(server)
    else:
        _import_all(server)
    versions = len({one.schema.id for one in subjects()})
    return f"{versions} schema versions under {len({one.subject for one in subjects()})} subjects in {url}"


@dataclass(frozen=True, slots=True)
class _Server:
    url: str

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        content = None if body is None else json.dumps(body).encode()
        return self.send(method, path, content, {"Content-Type": MEDIA, "Accept": MEDIA})

    def send(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> tuple[int, Any]:
        request = urllib.request.Request(self.url + path, content, dict(headers), method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _json(error.read())
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise InputError(f"schema registry {self.url}: {reason}") from None

    def must(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that is no error."""
        status, found = self.ask(method, path, body)
        if status >= 300:
            raise self.refusal(f"{method} {path}", status, found)
        return found

    def refusal(self, what: str, status: int, found: Any) -> InputError:
        said = found.get("message", found) if isinstance(found, dict) else found
        return InputError(f"schema registry {self.url}: {what} answered {status} {said}".strip())


def _import_all(server: _Server) -> None:
    names = list(dict.fromkeys(one.subject for one in subjects()))
    status, _ = server.ask("GET", "/mode")
    if status == 404:
        raise InputError(f"schema registry {server.url}: it has no mode IMPORT, so it gives ids of its own, and no "
                         "packet could be read with them")
    if status >= 300:
        raise server.refusal("GET /mode", status, _)
    for name in names:
        _delete(server, name)
    server.must("PUT", "/mode?force=true", {"mode": "IMPORT"})
    try:
        for one in subjects():
            _post(server, one)
    finally:
        server.must("PUT", "/mode?force=true", {"mode": "READWRITE"})


def _delete(server: _Server, name: str) -> None:
    """Softly, then for good; a subject that is not there is fine."""
    for query in ("", "?permanent=true"):
        status, found = server.ask("DELETE", f"/subjects/{quote(name, safe='')}{query}")
        if status >= 300 and status != 404:
            raise server.refusal(f"DELETE /subjects/{name}", status, found)


def _post(server: _Server, one: SubjectVersion) -> None:
    body: dict[str, Any] = {"schema": one.schema.text, "schemaType": "AVRO", "id": one.schema.id,
                            "version": one.number}
    if one.subject.endswith("-value"):
        body["metadata"] = {"properties": {"confluent:version": str(one.number)}}
    found = server.must("POST", f"/subjects/{quote(one.subject, safe='')}/versions", body)
    given = found.get("id") if isinstance(found, dict) else None
    if given != one.schema.id:
        raise InputError(f"schema registry {server.url}: it gave version {one.schema.version} the id {given} of its "
                         f"own instead of {one.schema.id}, and no packet could be read with it")


def _import_archive(server: _Server) -> None:
    headers = {"Content-Type": "application/zip", "X-Registry-Preserve-GlobalId": "true",
               "X-Registry-Preserve-ContentId": "true"}
    status, found = server.send("POST", "/admin/import", archive(), headers)
    if status >= 300:
        raise server.refusal("POST /admin/import", status, found)


def archive() -> bytes:
    """The schemas as an archive that Apicurio imports: manifest, contents, versions, in this order.

    Both its ids of a schema are the packets': the content's, which equal texts share, and the version's own, which
    must differ from one subject to another, so that the second subject's are numbered from 1,000,000 on.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("manifest-alerts.Manifest.json", json.dumps({
            "systemVersion": "2", "systemName": "alert-twin", "systemDescription": "alert schemas",
            "exportVersion": "1.0", "exportedOn": 0, "exportedBy": ""}))
        for schema in dict.fromkeys(one.schema for one in subjects()):
            name = sha256(schema.text.encode()).hexdigest()
            file.writestr(f"content/{name}.Content.json", json.dumps({
                "contentId": schema.id, "canonicalHash": name, "contentHash": name, "artifactType": "AVRO",
                "serializedReferences": None}))
            file.writestr(f"content/{name}.Content.data", schema.text)
        for one in subjects():
            file.writestr(f"groups/default/artifacts/{one.subject}/versions/{one.number}.ArtifactVersion.json",
                          json.dumps(_artifact(one)))
    return out.getvalue()


def _artifact(one: SubjectVersion) -> dict[str, Any]:
    last = max(other.number for other in subjects() if other.subject == one.subject)
    own = 1_000_000 if one.subject.endswith("-value") else 0
    return {"globalId": own + one.schema.id, "groupId": None, "artifactId": one.subject, "version": str(one.number),
            "versionId": one.number, "artifactType": "AVRO", "state": "ENABLED", "name": "alert",
            "description": f"Rubin alert schema {one.schema.version}", "createdBy": "", "createdOn": 0, "labels": None,
            "properties": None, "isLatest": one.number == last, "contentId": one.schema.id}


def _json(content: bytes) -> Any:
    try:
        return json.loads(content) if content else {}
    except ValueError:
        return content[:200].decode(errors="replace")
