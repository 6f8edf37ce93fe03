"""What has to hold in every night at counts fidelity, with or without faults: nothing vanishes, and queues are as long
as their waits say.
"""

from typing import Final

import numpy as np

from pipeline.errors import PipelineError
from reports.delays import parts
from schemas.measures import CALL_STEPS
from twin.counts import FILTERS
from twin.platform_config import REASONS
from twin.prompt_processing import Ran

TOLERANCE: Final = 1e-6        # of sums of seconds, relative


class Unbalanced(PipelineError):
    """A night whose books do not balance: an error of the simulation, never of the night."""


def check(ran: Ran) -> None:
    """Raise `Unbalanced` with every law that a night breaks."""
    if broken := broken_laws(ran):
        raise Unbalanced("the night does not balance: " + "; ".join(broken))


def broken_laws(ran: Ran) -> list[str]:
    """Which laws do not hold, in words."""
    return [*_conserved(ran), *_little(ran), *_summed(ran)]


def _conserved(ran: Ran) -> list[str]:
    """Detections are filtered or alerts; alerts are sent or failed for a reason; what went out is what was sent."""
    p, out = ran.passages, []
    left = p["n_detected"] - np.sum([p[f"n_{name}"] for name in FILTERS], axis=0)
    if np.any(left != p["n_alerts"]):
        out.append(f"{int(np.sum(left != p['n_alerts']))} detector-visits whose detections are neither filtered nor "
                   "alerts")
    failed = p["reason"] != b""
    if np.any(p["n_sent"] != np.where(failed, 0, p["n_alerts"])):
        out.append(f"{int(np.sum(p['n_sent'] != np.where(failed, 0, p['n_alerts'])))} detector-visits whose alerts are "
                   "neither sent nor failed for a reason")
    unknown = np.setdiff1d(p["reason"][failed], [reason.encode() for reason in REASONS])
    if len(unknown):
        out.append(f"reasons that nobody knows: {', '.join(r.decode() for r in unknown)}")
    egress = ran.calls[ran.calls["step"] == CALL_STEPS.index("egress")]
    carried = int(p["n_alerts"][egress["row"]].sum())
    if carried != int(p["n_sent"].sum()):
        out.append(f"{int(p['n_sent'].sum())} alerts sent, {carried} carried to the brokers")
    return out


def _little(ran: Ran) -> list[str]:
    """Little's law for the stream and the pods: mean number = rate x mean time, summed in two ways."""
    out = []
    for what, area, spans in (("messages in the stream", ran.queue_area, ran.queue_waits),
                              ("busy workers", ran.busy_area, ran.busy_spans)):
        if abs(area - spans) > TOLERANCE * max(area, 1.0):
            out.append(f"Little's law fails for {what}: {area:.6g} s as their number went, {spans:.6g} s one by one")
    return out


def _summed(ran: Ran) -> list[str]:
    """The parts of a delay are its sum, and none is negative."""
    p = ran.passages
    known = np.isfinite(p["delivered_s"])
    each = parts(p, ran.calls)[known]
    off = np.abs(each.sum(axis=1) - (p["delivered_s"] - p["readout_end_s"])[known])
    bad = int(np.sum((off > 1e-4) | (each < -1e-4).any(axis=1)))
    return [f"{bad} detector-visits whose delay is not the sum of its parts"] if bad else []


__all__ = ["Unbalanced", "broken_laws", "check"]
