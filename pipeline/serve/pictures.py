"""Cutouts as PNG: grey, stretched between percentiles, drawn from bytes that may be hostile."""

import io
import struct
import zlib
from typing import Final

import numpy as np

from pipeline.errors import PacketError

SIDE: Final = 1000             # pixels at most: schemas.alert.CUTOUT_MAX is 102
PERCENTILES: Final = (1.0, 99.5)
ZOOM: Final = 6                # screen pixels per pixel, as far as SIDE allows


def picture(content: bytes) -> bytes:
    """The first image of a FITS file as PNG, first row below; pixels that are not finite are black."""
    return png(np.flipud(_stretched(first_image(content))))


def first_image(content: bytes) -> np.ndarray:
    """The primary image of a FITS file, (ny, nx) float64. PacketError if there is none of a cutout's size."""
    from astropy.io import fits

    if not content.startswith(b"SIMPLE  ="):       # astropy would unpack gzip, bzip2 and zip
        raise PacketError(0, "cutout: not a FITS file")
    try:
        header = fits.Header.fromfile(io.BytesIO(content), padding=False)
        shape = tuple(int(header.get(f"NAXIS{axis}", 0)) for axis in (2, 1))
        if header.get("NAXIS") != 2 or not all(0 < side <= SIDE for side in shape):
            raise ValueError(f"an image of two axes of 1 to {SIDE} pixels was expected, got NAXIS = "
                             f"{header.get('NAXIS')} and {shape[1]} x {shape[0]}")
        with fits.open(io.BytesIO(content), memmap=False, disable_image_compression=True) as units:
            image = np.asarray(units[0].data, np.float64)
    except Exception as error:
        raise PacketError(0, f"cutout: {' '.join(str(error).split()) or type(error).__name__}") from error
    if image.shape != shape:
        raise PacketError(0, f"cutout: {shape} pixels were announced, got {image.shape}")
    return image


def png(grey: np.ndarray) -> bytes:
    """An (ny, nx) uint8 image, first row on top, as PNG."""
    ny, nx = grey.shape
    lines = np.zeros((ny, nx + 1), np.uint8)       # each line begins with its filter: none
    lines[:, 1:] = grey
    return b"".join([b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", struct.pack(">IIBBBBB", nx, ny, 8, 0, 0, 0, 0)),
                     _chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)), _chunk(b"IEND", b"")])


def _stretched(image: np.ndarray) -> np.ndarray:
    finite = np.isfinite(image)
    low, high = np.percentile(image[finite], PERCENTILES) if finite.any() else (0.0, 1.0)
    scaled = (np.where(finite, image, low) - low) / max(high - low, 1e-30) if high > low else np.zeros(image.shape)
    grey = np.rint(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)
    zoom = max(1, min(ZOOM, SIDE // max(image.shape)))
    return np.repeat(np.repeat(grey, zoom, 0), zoom, 1)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
