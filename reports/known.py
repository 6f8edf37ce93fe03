"""What another program's catalogue cannot say: figures, metrics and parts of a page that would judge it by what it did
not give.

A scored catalogue has facts "not known: TOPIC", each with the reason. Such a topic is no figure of value 0: it is left
out, and the page has a table of the topics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from reports.acceptance import Figure
    from reports.terms import Metric

FACT: Final = "not known: "
CHECK: Final = "check "            # begins the keys of facts that doubt the catalogue's units or conventions
CATALOGUE: Final = "catalogue"     # fact `kind` of such a run


@dataclass(frozen=True, slots=True)
class Topic:
    """What an unknown topic takes with it; `*` stands for anything."""

    figures: tuple[str, ...] = ()      # keys of figures
    metrics: tuple[str, ...] = ()      # SECTION/KEY of metrics
    sections: tuple[str, ...] = ()     # of the page of a run


TOPICS: Final[Mapping[str, Topic]] = {
    "work and latency": Topic(("cost",), ("cost/*", "latency/*", "*/packet_size"), ("latency", "steps")),
    "its own pixels": Topic(
        ("pull_*",), ("forced photometry/*", "photometry/true_*", "photometry/pull_*", "completeness/clean",
                      "template/*", "association/unassociated_objects", "association/updated_objects"), ("cutouts",)),
    "calibration": Topic(
        ("wcs", "zeropoint", "psf_size", "lag1", "snr_rms", "depth_*"),
        ("noise/*", "photometry/zeropoint_*", "photometry/psf_size", "astrometry/wcs_rms", "astrometry/astrom_*",
         "direct images/*", "failures/*")),
    "fluxes": Topic((), ("photometry/magnitude_*", "photometry/flux_*"), ("photometry",)),
    "signal-to-noise": Topic(("purity_*",), ("purity/purity_*",)),
    "reliability": Topic(),
    "association": Topic(("association",), ("association/*", "alert rate/new_objects"), ("association",)),
    "Solar System objects": Topic(("ss_association",), ("Solar System/*",), ("solarsystem",)),
    "errors of positions": Topic(("position_pull_*",), ("astrometry/position_pull_*",)),
    "dipoles": Topic(("dipole_*",), ("*/dipole*", "*/point_dipoles", "*/dia_dipoles")),
    "trails": Topic(("trail_*",), ("*/trail*",))}
_SHAPES: Final = ("dipoles", "trails")     # they have one section


def unknown(facts: Mapping[str, str]) -> dict[str, str]:
    """Topics that a run does not know, with the reasons; none for a run of our own."""
    return {key.removeprefix(FACT): why for key, why in facts.items() if key.startswith(FACT)}


def is_catalogue(*sides: Mapping[str, str]) -> bool:
    """Whether any of the sides is another program's catalogue, by its facts."""
    return any(facts.get("kind") == CATALOGUE for facts in sides)


def known_figures(figures: Iterable["Figure"], facts: Mapping[str, str]) -> list["Figure"]:
    """The figures without those of unknown topics."""
    patterns = [pattern for topic in unknown(facts) for pattern in TOPICS[topic].figures]
    return [figure for figure in figures if not _matches(figure.key, patterns)]


def known_metrics(metrics: Iterable["Metric"], *sides: Mapping[str, str]) -> tuple["Metric", ...]:
    """The metrics that every side's facts let it be judged by."""
    patterns = [pattern for facts in sides for topic in unknown(facts) for pattern in TOPICS[topic].metrics]
    return tuple(metric for metric in metrics if not _matches(f"{metric.section}/{metric.key}", patterns))


def silent(section: str, facts: Mapping[str, str]) -> bool:
    """Whether a section of the page has nothing to say."""
    topics = unknown(facts)
    if section == "shapes":
        return all(topic in topics for topic in _SHAPES)
    return any(section in TOPICS[topic].sections for topic in topics)


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)
