"""What another program's catalogue cannot say: figures and parts of a page that would judge it by what it did not give.

A scored catalogue has facts "not known: TOPIC", each with the reason. Such a topic is no figure of value 0: it is left
out, and the page has a table of the topics.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from reports.acceptance import Figure

FACT: Final = "not known: "
CHECK: Final = "check "            # begins the keys of facts that doubt the catalogue's units or conventions
CATALOGUE: Final = "catalogue"     # fact `kind` of such a run

# By topic: keys of the figures that it takes with it (whole, or up to an underscore), and sections of the page.
TOPICS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "work and latency": (("cost",), ("latency", "steps")),
    "own masks and forced fluxes": (("pull",), ()),
    "calibration": (("wcs", "zeropoint", "psf", "lag1", "snr", "depth"), ()),
    "fluxes": ((), ()),
    "signal-to-noise": (("purity",), ()),
    "reliability": ((), ()),
    "association": (("association",), ("association",)),
    "Solar System objects": (("ss",), ()),
    "errors of positions": (("position_pull",), ()),
    "dipoles": (("dipole",), ()),
    "trails": (("trail",), ())}
_SHAPES: Final = ("dipoles", "trails")     # they have one section


def unknown(facts: Mapping[str, str]) -> dict[str, str]:
    """Topics that a run does not know, with the reasons; none for a run of our own."""
    return {key.removeprefix(FACT): why for key, why in facts.items() if key.startswith(FACT)}


def known_figures(figures: Sequence[Figure], facts: Mapping[str, str]) -> list[Figure]:
    """The figures without those of unknown topics."""
    prefixes = tuple(prefix for topic in unknown(facts) for prefix in TOPICS[topic][0])
    return [figure for figure in figures if not any(figure.key == p or figure.key.startswith(f"{p}_")
                                                    for p in prefixes)]


def silent(section: str, facts: Mapping[str, str]) -> bool:
    """Whether a section of the page has nothing to say."""
    topics = unknown(facts)
    if section == "shapes":
        return all(topic in topics for topic in _SHAPES)
    return any(section in TOPICS[topic][1] for topic in topics)

