"""FITS files to exposures, templates and catalogues, and back: the pipeline's door to real data.

An image is the first HDU with two-dimensional data, or HDU `IMAGE`; a mask may lie in HDU `MASK` (bits of
`schemas.mask` in files of our own, otherwise any non-zero pixel is bad). What a header lacks or has wrong, a site
config supplies: literal values for one file, for all files, or the name of the keyword to read.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from astropy.io import fits

from pipeline.errors import InputError
from pipeline.images import Template
from pipeline.pixel_config import Section
from pipeline.psf import Psf
from schemas import mask as planes
from schemas.exposure import BANDS, Exposure, Visit
from schemas.wcs import Wcs


class HeaderFacts(Section, frozen=True):
    """What an exposure must know beside its pixels; None: not given here."""

    visit: int | None = None
    detector: int | None = None
    band: str | None = None
    mjd_tai: float | None = None            # midpoint of the exposure
    exposure_s: float | None = None
    gain: float | None = None               # electrons per ADU
    read_noise: float | None = None         # electrons
    saturation: float | None = None         # ADU
    pedestal: float | None = None           # sky already subtracted [ADU]; nan: subtracted, level unknown
    airmass: float | None = None
    observation_reason: str | None = None
    target_name: str | None = None
    wcs_error_arcsec: float | None = None
    wcs_error_deg: float | None = None


class Keywords(Section, frozen=True):
    """The header keyword of each fact, tried in order."""

    visit: tuple[str, ...] = ("VISIT", "EXPNUM")
    detector: tuple[str, ...] = ("DETECTOR", "CCDNUM")
    band: tuple[str, ...] = ("BAND", "FILTER")
    mjd_tai: tuple[str, ...] = ("MJD-MID",)
    mjd_start_utc: tuple[str, ...] = ("MJD-OBS",)
    exposure_s: tuple[str, ...] = ("EXPTIME",)
    gain: tuple[str, ...] = ("GAIN",)
    read_noise: tuple[str, ...] = ("RDNOISE",)
    saturation: tuple[str, ...] = ("SATURATE",)
    pedestal: tuple[str, ...] = ("PEDESTAL",)
    airmass: tuple[str, ...] = ("AIRMASS",)
    observation_reason: tuple[str, ...] = ("OBSREASN",)
    target_name: tuple[str, ...] = ("TARGNAME", "OBJECT")
    wcs_error_arcsec: tuple[str, ...] = ("WCSERR",)
    wcs_error_deg: tuple[str, ...] = ("WCSROT",)


class HeaderConfig(Section, frozen=True):
    """How headers are read: a file's own values win, then the values for all files, then its keywords."""

    values: HeaderFacts = HeaderFacts()
    files: dict[str, HeaderFacts] = {}
    keywords: Keywords = Keywords()


# --- exposures -------------------------------------------------------------------------------------------------------

def read_exposure(path: Path, config: HeaderConfig) -> Exposure:
    """One exposure from a FITS file; InputError names the file and the keyword or HDU that is at fault."""
    with _opened(path) as hdus:
        image, header = _image(path, hdus)
        wcs = _wcs(path, header)
        facts = _facts(path, header, config)
        mask = _mask(path, hdus, image.shape)
    bad = ~np.isfinite(image)
    if bad.all():
        raise InputError(f"{path}: every pixel is NaN")
    ra, dec = wcs.sky((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
    top_ra, top_dec = wcs.sky((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2 + 1.0)
    rotation = np.degrees(np.arctan2((top_ra - ra) * np.cos(np.radians(dec)), top_dec - dec))
    visit = Visit(facts["visit"], facts["band"], float(header.get("BORE-RA", ra)), float(header.get("BORE-DEC", dec)),
                  float(header.get("ROTATION", rotation)), facts["mjd_tai"], facts["exposure_s"], facts["airmass"],
                  facts["observation_reason"], facts["target_name"])
    mask = mask | np.where(bad, planes.BAD, 0) | np.where(image >= facts["saturation"], planes.SAT, 0)
    return Exposure(visit, facts["detector"], np.where(bad, 0.0, image).astype(np.float32), mask.astype(np.int32), wcs,
                    facts["gain"], facts["read_noise"], facts["saturation"], facts["wcs_error_arcsec"],
                    facts["wcs_error_deg"], facts["pedestal"])


def write_exposure(path: Path, exposure: Exposure) -> None:
    """An exposure as a FITS file that `read_exposure` gives back unchanged (its WCS rounded to what cards hold)."""
    v = exposure.visit
    header = fits.Header(exposure.wcs.header())
    for key, value in (("VISIT", v.visit), ("DETECTOR", exposure.detector), ("BAND", v.band), ("BORE-RA", v.ra),
                       ("BORE-DEC", v.dec), ("ROTATION", v.rotation), ("MJD-MID", v.mjd_tai),
                       ("EXPTIME", v.exposure_s), ("AIRMASS", v.airmass), ("OBSREASN", v.observation_reason),
                       ("TARGNAME", v.target_name), ("GAIN", exposure.gain), ("RDNOISE", exposure.read_noise),
                       ("SATURATE", exposure.saturation), ("WCSERR", exposure.wcs_error_arcsec),
                       ("WCSROT", exposure.wcs_error_deg)):
        header[key] = value
    header["PEDESTAL"] = exposure.pedestal if np.isfinite(exposure.pedestal) else "unknown"
    header["BUNIT"] = "adu"
    _write(path, [fits.PrimaryHDU(), fits.ImageHDU(exposure.image, header, name="IMAGE"),
                  fits.ImageHDU(exposure.mask, name="MASK")])


def _facts(path: Path, header: fits.Header, config: HeaderConfig) -> dict[str, Any]:
    own = config.files.get(path.name, HeaderFacts())
    found: dict[str, Any] = {}
    for name in HeaderFacts.__struct_fields__:
        for given in (getattr(own, name), getattr(config.values, name)):
            if given is not None:
                found[name] = given
                break
        else:
            keyword = next((k for k in getattr(config.keywords, name) if k in header), None)
            if keyword is not None:
                found[name] = header[keyword]
    if "mjd_tai" not in found:
        found["mjd_tai"] = _midpoint(path, header, config, found)
    defaults = {"airmass": 1.0, "observation_reason": "", "target_name": "", "pedestal": 0.0, "read_noise": 0.0,
                "wcs_error_arcsec": 5.0, "wcs_error_deg": 0.1, "saturation": np.inf}
    for name, default in defaults.items():
        found.setdefault(name, default)
    return {name: _fact(path, name, found, config) for name in HeaderFacts.__struct_fields__}


def _fact(path: Path, name: str, found: dict[str, Any], config: HeaderConfig) -> Any:
    keywords = " or ".join(getattr(config.keywords, name))
    if name not in found:
        raise InputError(f"{path}: no {name}: header lacks {keywords} and the config gives none")
    value = found[name]
    if name == "band":
        band = str(value).strip()[:1].lower() if str(value).strip()[1:2] in ("", " ") else str(value).strip()
        if band not in BANDS:
            raise InputError(f"{path}: band {value!r} ({keywords}) is not one of {', '.join(BANDS)}; "
                             "give it in the config")
        return band
    if name in ("observation_reason", "target_name"):
        return str(value)
    if name == "pedestal" and isinstance(value, str):
        return float("nan")
    try:
        number = int(value) if name in ("visit", "detector") else float(value)
    except (TypeError, ValueError):
        raise InputError(f"{path}: {name} ({keywords}) must be a number, got {value!r}") from None
    if name in ("gain", "exposure_s", "saturation") and not number > 0:
        raise InputError(f"{path}: {name} ({keywords}) must be positive, got {number}")
    if name in ("visit", "detector") and number < 0:
        raise InputError(f"{path}: {name} ({keywords}) must not be negative, got {number}")
    return number


def _midpoint(path: Path, header: fits.Header, config: HeaderConfig, found: dict[str, Any]) -> float:
    from astropy.time import Time

    keyword = next((k for k in config.keywords.mjd_start_utc if k in header), None)
    if keyword is None or "exposure_s" not in found:
        raise InputError(f"{path}: no mjd_tai: header lacks {' or '.join(config.keywords.mjd_tai)} and "
                         f"{' or '.join(config.keywords.mjd_start_utc)}, and the config gives none")
    start = float(Time(float(header[keyword]), format="mjd", scale="utc").tai.mjd)
    return start + float(found["exposure_s"]) / 2 / 86400


# --- templates -------------------------------------------------------------------------------------------------------

def write_template(path: Path, template: Template, *, depth: np.ndarray | None = None) -> None:
    """A template as FITS: IMAGE, VARIANCE, MASK, NINPUTS, PSF (basis cube), ACF, and DEPTH where it is given."""
    header = fits.Header(template.wcs.header())
    header["BAND"], header["BUNIT"] = template.band, "nJy"
    psf = fits.Header({"ORDER": template.psf.order, "PSFNY": template.psf.shape[0], "PSFNX": template.psf.shape[1]})
    inputs = fits.BinTableHDU.from_columns([fits.Column("visit", "K", array=np.array(template.inputs, np.int64))],
                                           name="INPUTS")
    _write(path, [fits.PrimaryHDU(), fits.ImageHDU(template.image, header, name="IMAGE"),
                  fits.ImageHDU(template.variance, name="VARIANCE"), fits.ImageHDU(template.mask, name="MASK"),
                  fits.ImageHDU(template.n_inputs, name="NINPUTS"),
                  fits.ImageHDU(np.asarray(template.psf.basis, float), psf, name="PSF"),
                  fits.ImageHDU(np.asarray(template.noise_acf, float), name="ACF"), inputs,
                  *([] if depth is None else [fits.ImageHDU(depth, name="DEPTH")])])


def is_template(path: Path) -> bool:
    """Whether a FITS file has the planes that `write_template` makes; otherwise it is an image to be calibrated."""
    with _opened(path) as hdus:
        names = {hdu.name for hdu in hdus}
    return {"IMAGE", "VARIANCE", "PSF"} <= names


def read_template(path: Path) -> Template:
    """A template with its variance, mask and PSF."""
    with _opened(path) as hdus:
        image, header = _image(path, hdus)
        try:
            psf = Psf(_native(hdus["PSF"].data), int(hdus["PSF"].header["ORDER"]),
                      (int(hdus["PSF"].header["PSFNY"]), int(hdus["PSF"].header["PSFNX"])))
            return Template(str(header["BAND"]), image.astype(np.float32), _native(hdus["VARIANCE"].data),
                            _native(hdus["MASK"].data), psf, _wcs(path, header), _native(hdus["NINPUTS"].data),
                            _native(hdus["ACF"].data), tuple(int(v) for v in hdus["INPUTS"].data["visit"]))
        except KeyError as error:
            raise InputError(f"{path}: not a template: {error}") from None


# --- catalogues ------------------------------------------------------------------------------------------------------

def read_table(path: Path, dtype: np.dtype) -> np.ndarray:
    """Rows of a FITS binary table as `dtype`; columns that the table lacks are null, a wrong file is an InputError."""
    from schemas.measures import empty

    with _opened(path) as hdus:
        table = next((h for h in hdus if isinstance(h, fits.BinTableHDU)), None)
        if table is None:
            raise InputError(f"{path}: no binary table in the file")
        data = table.data
        rows = empty(dtype, len(data))
        required = [n for n in ("ra", "dec") if n in (dtype.names or ()) and n not in data.names]
        if required:
            raise InputError(f"{path}: the table lacks the columns {', '.join(required)}; "
                             f"it has {', '.join(data.names)}")
        for name in dtype.names or ():
            if name in data.names:
                rows[name] = np.asarray(data[name]).reshape(rows[name].shape)
    return rows


def write_table(path: Path, rows: np.ndarray) -> None:
    """Structured rows as one FITS binary table."""
    _write(path, [fits.PrimaryHDU(), fits.BinTableHDU(rows, name="TABLE")])


# --- FITS ------------------------------------------------------------------------------------------------------------

def _opened(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            hdus = fits.open(io.BytesIO(path.read_bytes()), memmap=False, lazy_load_hdus=False)
            for i, hdu in enumerate(hdus):
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", category=fits.verify.VerifyWarning)
                    _ = hdu.data
                if i > 64:
                    raise InputError(f"{path}: more than 64 HDUs")
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable FITS file ({reason})") from None
    return hdus


def _image(path: Path, hdus: Any) -> tuple[np.ndarray, fits.Header]:
    for hdu in hdus:
        if hdu.is_image and hdu.data is not None and hdu.data.ndim == 2 and hdu.name in ("IMAGE", "PRIMARY", "SCI", ""):
            return _native(hdu.data), hdu.header
    for hdu in hdus:
        if hdu.is_image and hdu.data is not None and hdu.data.ndim == 2:
            return _native(hdu.data), hdu.header
    raise InputError(f"{path}: no HDU holds a two-dimensional image")


def _mask(path: Path, hdus: Any, shape: tuple[int, ...]) -> np.ndarray:
    for i, hdu in enumerate(hdus):
        if hdu.name == "MASK" and hdu.data is not None:
            if hdu.data.shape != shape:
                raise InputError(f"{path}: HDU {i} MASK has shape {hdu.data.shape}, the image {shape}")
            return np.asarray(_native(hdu.data), np.int32)
    return np.zeros(shape, np.int32)


def _wcs(path: Path, header: fits.Header) -> Wcs:
    try:
        return Wcs.from_header(header)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}") from None


def _native(data: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(data.astype(data.dtype.newbyteorder("=")))


def _write(path: Path, hdus: list[Any]) -> None:
    aside = path.with_name(path.name + ".part")
    fits.HDUList(hdus).writeto(aside, overwrite=True)
    aside.replace(path)


def decode_config(text: str, kind: type[Section], path: Path) -> Any:
    """A strict TOML config; an unknown key or wrong value is one InputError that names file and key."""
    try:
        return msgspec.toml.decode(text.encode(), type=kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}") from None
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: not a TOML file ({error})") from None


