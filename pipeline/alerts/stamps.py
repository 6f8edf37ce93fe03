"""Cutouts as FITS files in memory: written byte for byte as astropy's CCDData writer does, and read.

    PRIMARY   float32 image    header: CUTMINX, CUTMINY, ROTPA, BUNIT nJy, a linear WCS about the source
    MASK      int32 bits       in the paper's form alone, with the number of each plane's bit
    UNCERT    float32 variance
    PSFIMAGE  float64 PSF, the average of the whole image

Public alerts hold no mask and no CTYPE: the pipeline passes the mask as `flags`, which astropy does not write, and
sets no projection. CRPIX counts from 1, as FITS does, and CUTMINX is one less than the column of the cutout's first
pixel, so that x = CUTMINX + CRPIX1.
"""

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from schemas.mask import PLANES

BLOCK: Final = 2880
CARD: Final = 80


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cutout lies: the header's variable part."""

    x_min: int                                  # first column of the cutout in the science image, counted from 0
    y_min: int
    rotation: float                             # position angle of the focal plane's +Y, East of North [deg]
    position: tuple[float, float]               # of the source in the science image [pixel from 0]
    pc: tuple[float, float, float, float]       # (RA cos Dec, Dec) by (x, y) [deg/pixel]
    crval: tuple[float, float]                  # the source [deg]


@dataclass(frozen=True, slots=True)
class Stamp:
    """A cutout read back."""

    image: np.ndarray                           # (s, s) float32 [nJy]
    variance: np.ndarray                        # (s, s) float32 [nJy^2]
    psf: np.ndarray                             # (m, m) float64
    header: dict[str, object]                   # of the primary HDU
    mask: np.ndarray | None = None              # (s, s) int32; public alerts have none


def primary_header(place: Place, shape: tuple[int, int], *, projected: bool = False) -> bytes:
    """The primary header of the cutouts at one place; `projected` adds the gnomonic projection that the paper has."""
    cards = [*_opening(-32, shape, "SIMPLE  =                    T / conforms to FITS standard"),
             _card("EXTEND", "T"), _card("CUTMINX", str(place.x_min - 1)), _card("CUTMINY", str(place.y_min - 1)),
             _card("ROTPA", number(place.rotation), "Pos angle in deg of focal plane +Y wrt North"),
             "BUNIT   = 'nJy     '".ljust(CARD), _card("WCSAXES", "2", "Number of coordinate axes")]
    crpix = place.position[0] - (place.x_min - 1), place.position[1] - (place.y_min - 1)
    for i, value in enumerate(crpix, 1):
        cards.append(_card(f"CRPIX{i}", number(_rounded(value)), "Pixel coordinate of reference point"))
    for i, value in enumerate(place.pc):
        identity = 1.0 if i in (0, 3) else 0.0
        if value != identity:                   # wcslib leaves out elements of the unit matrix
            cards.append(_card(f"PC{i // 2 + 1}_{i % 2 + 1}", number(_rounded(value)),
                               "Coordinate transformation matrix element"))
    degrees = "[deg] " if projected else ""
    for i in (1, 2):
        cards.append(_card(f"CDELT{i}", "1.0", f"{degrees}Coordinate increment at reference point"))
    cards += _PROJECTION if projected else ()
    for i, value in enumerate(place.crval, 1):
        cards.append(_card(f"CRVAL{i}", number(_rounded(value)), f"{degrees}Coordinate value at reference point"))
    if projected:
        cards.append(_card("LONPOLE", "180.0", "[deg] Native longitude of celestial pole"))
    pole = number(_rounded(place.crval[1])) if projected else "90.0"
    cards.append(_card("LATPOLE", pole, "[deg] Native latitude of celestial pole"))
    cards.append(_card("MJDREF", "0.0", "[d] MJD of fiducial time"))
    if projected:
        cards.append("RADESYS = 'ICRS'               / Equatorial coordinate system".ljust(CARD))
    return _header(cards)


@lru_cache(maxsize=128)
def variance_header(shape: tuple[int, int]) -> bytes:
    """The header of UNCERT."""
    return _header([*_opening(-32, shape, _IMAGE), *_COUNTS, "UTYPE   = 'VarianceUncertainty'".ljust(CARD),
                    "EXTNAME = 'UNCERT  '           / extension name".ljust(CARD)])


def mask_unit(mask: np.ndarray) -> bytes:
    """The whole MASK HDU, of int32 bits; cards MP_PLANE say which bit a plane is, as afw's files do."""
    return _mask_header((mask.shape[0], mask.shape[1])) + data(mask.astype(">i4"))


@lru_cache(maxsize=128)
def _mask_header(shape: tuple[int, int]) -> bytes:
    numbers = {f"MP_{name}": str(bit.bit_length() - 1) for name, bit in PLANES.items()}
    planes = [_card(key, value) if len(key) <= 8 else f"HIERARCH {key} = {value}".ljust(CARD)
              for key, value in numbers.items()]
    named = "EXTNAME = 'MASK    '           / extension name".ljust(CARD)
    return _header([*_opening(32, shape, _IMAGE), *_COUNTS, named, *planes])


def psf_unit(psf: np.ndarray) -> bytes:
    """The whole PSFIMAGE HDU."""
    header = _header([*_opening(-64, (psf.shape[0], psf.shape[1]), _IMAGE), *_COUNTS,
                      "EXTNAME = 'PSFIMAGE'           / extension name".ljust(CARD)])
    return header + data(psf.astype(">f8"))


def data(pixels: np.ndarray) -> bytes:
    """Big-endian pixels, padded to whole blocks."""
    raw = pixels.tobytes()
    return raw + b"\0" * (-len(raw) % BLOCK)


def number(value: float) -> str:
    """A floating-point number as astropy writes it: the shortest form that reads back, in at most 20 characters."""
    text = str(float(value)).replace("e", "E")
    if len(text) > 20:
        mantissa, mark, exponent = text.partition("E")
        text = mantissa[:20 - len(mark + exponent)] + mark + exponent
    return text


def read_stamp(content: bytes) -> Stamp:
    """A cutout of an alert; ValueError says what is missing."""
    from astropy.io import fits

    if not content.startswith(b"SIMPLE  ="):       # what astropy would unpack first: a few bytes can become gigabytes
        raise ValueError(f"a FITS file begins with SIMPLE, got {content[:9]!r}")
    with fits.open(io.BytesIO(content), memmap=False) as units:
        names = [unit.name for unit in units]
        for name in ("PRIMARY", "UNCERT", "PSFIMAGE"):
            if name not in names:
                raise ValueError(f"a cutout needs an HDU {name}, got {', '.join(names)}")
        mask = np.array(units["MASK"].data, np.int32) if "MASK" in names else None
        return Stamp(np.array(units["PRIMARY"].data, np.float32), np.array(units["UNCERT"].data, np.float32),
                     np.array(units["PSFIMAGE"].data, np.float64), dict(units["PRIMARY"].header), mask)


_IMAGE: Final = "XTENSION= 'IMAGE   '           / Image extension"


def _card(key: str, value: str, comment: str = "") -> str:
    text = f"{key:<8}= {value:>20}"
    return (f"{text} / {comment}" if comment else text).ljust(CARD)


_PROJECTION: Final = (
    "CUNIT1  = 'deg'                / Units of coordinate increment and value".ljust(CARD),
    "CUNIT2  = 'deg'                / Units of coordinate increment and value".ljust(CARD),
    "CTYPE1  = 'RA---TAN'           / Right ascension, gnomonic projection".ljust(CARD),
    "CTYPE2  = 'DEC--TAN'           / Declination, gnomonic projection".ljust(CARD))
_COUNTS: Final = (_card("PCOUNT", "0", "number of parameters"), _card("GCOUNT", "1", "number of groups"))


def _opening(bitpix: int, shape: tuple[int, int], first: str) -> list[str]:
    return [first.ljust(CARD), _card("BITPIX", str(bitpix), "array data type"),
            _card("NAXIS", "2", "number of array dimensions"), _card("NAXIS1", str(shape[1])),
            _card("NAXIS2", str(shape[0]))]


def _header(cards: list[str]) -> bytes:
    text = "".join(cards) + "END".ljust(CARD)
    return text.ljust(-(-len(text) // BLOCK) * BLOCK).encode("ascii")


def _rounded(value: float) -> float:
    """To 14 significant digits, as wcslib prints them."""
    return float(f"{value:.14g}")
