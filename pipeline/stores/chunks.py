"""Replica chunks: what was saved in one window of 600 s, under a name that changes with every save into it."""

from hashlib import sha256

from pipeline.ports import ReplicaChunk
from schemas.updates import chunk_of, chunk_start_mjd_tai


def touched(before: ReplicaChunk | None, mjd_tai: float, why: str) -> ReplicaChunk:
    """The chunk of a time after one more save; `why` names the save."""
    chunk = chunk_of(mjd_tai)
    when = mjd_tai if mjd_tai == mjd_tai else chunk_start_mjd_tai(chunk)
    last = when if before is None else max(when, before.last_update_mjd_tai)
    return ReplicaChunk(chunk, last, sha256(f"{before and before.unique_id} {why}".encode()).hexdigest()[:32])
