"""Mask planes: one bit per plane, named as in the LSST Science Pipelines."""

from typing import Final

BAD: Final = 1 << 0              # known defect of the detector
SAT: Final = 1 << 1              # saturated
INTRP: Final = 1 << 2            # interpolated over
CR: Final = 1 << 3               # cosmic ray
EDGE: Final = 1 << 4             # too near to the border to be trusted
DETECTED: Final = 1 << 5         # in a positive footprint
DETECTED_NEGATIVE: Final = 1 << 6
SUSPECT: Final = 1 << 7          # near or above the end of the linear range
NO_DATA: Final = 1 << 8          # no input pixel
STREAK: Final = 1 << 9           # on a satellite's trail
HIGH_VARIANCE: Final = 1 << 10   # template variance far above the median
SPIKE: Final = 1 << 11           # diffraction spike of a bright star
SAT_TEMPLATE: Final = 1 << 12    # saturated in the template
INJECTED: Final = 1 << 13        # touched by an injected source
INJECTED_CORE: Final = 1 << 14
INJECTED_TEMPLATE: Final = 1 << 15
INJECTED_CORE_TEMPLATE: Final = 1 << 16

PLANES: Final[dict[str, int]] = {
    "BAD": BAD, "SAT": SAT, "INTRP": INTRP, "CR": CR, "EDGE": EDGE, "DETECTED": DETECTED,
    "DETECTED_NEGATIVE": DETECTED_NEGATIVE, "SUSPECT": SUSPECT, "NO_DATA": NO_DATA, "STREAK": STREAK,
    "HIGH_VARIANCE": HIGH_VARIANCE, "SPIKE": SPIKE, "SAT_TEMPLATE": SAT_TEMPLATE, "INJECTED": INJECTED,
    "INJECTED_CORE": INJECTED_CORE, "INJECTED_TEMPLATE": INJECTED_TEMPLATE,
    "INJECTED_CORE_TEMPLATE": INJECTED_CORE_TEMPLATE,
}

INPUT: Final = BAD | SAT         # the planes an exposure arrives with
UNUSABLE: Final = NO_DATA | BAD | SAT | EDGE   # detection ignores peaks here (ip_diffim detectAndMeasure)


def names(bits: int) -> tuple[str, ...]:
    """Names of the planes set in `bits`, lowest bit first."""
    return tuple(name for name, bit in PLANES.items() if bits & bit)
