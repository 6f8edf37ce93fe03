"""Differences kept for a month, so that new objects can be measured on the nights before anybody knew of them.

    FOLDER/VISIT_DETECTOR.npz     one detector-visit
        facts         JSON: the visit, its WCS, the shape, the steps of the planes
        difference    whole numbers of a step, the noise over `noise_steps`; their bytes in planes, deflated
        variance      logarithms over that of the median, in steps of 1/16
        bad           a bit per pixel: takes no part in a fit
        psf           stamps of the model, float32
    FOLDER/VISIT_DETECTOR.next    how many forced ids of it have been given out

Of an image of white noise a step of sigma / 8 keeps 5.1 bits per pixel, and adds a tenth of a per cent to its variance.
"""

import json
import os
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from pipeline.durable import write_whole
from pipeline.errors import InputError
from pipeline.measure.flux import PsfModel, force
from pipeline.pixels import Planes
from pipeline.ports import Pixels
from pipeline.psf import Psf
from schemas.exposure import Visit
from schemas.ids import MAX_COUNT
from schemas.measures import FORCED, empty
from schemas.wcs import Wcs

FORM: Final = 1
LOG_STEP: Final = 1 / 16      # rounds a pixel's noise by 1 % rms
FIRST_ID: Final = MAX_COUNT // 2     # counters of a night's own forced points stay below


@dataclass(frozen=True, slots=True)
class Kept:
    """A detector-visit whose difference was kept."""

    visit: Visit
    detector: int
    wcs: Wcs
    shape: tuple[int, int]


class Archive(Protocol):
    """Where differences are kept."""

    def keep(self, visit: Visit, detector: int, planes: Planes) -> int:
        """Keep a difference, in place of an older one of the same detector-visit; bytes it takes."""
        ...

    def kept(self, since: float, until: float) -> list[Kept]:
        """What is kept of midpoints in [since, until), in time order."""
        ...

    def pixels(self, kept: Kept) -> Pixels:
        """Its difference for forced photometry; scienceFlux is NaN."""
        ...

    def reserve(self, kept: Kept, count: int) -> int:
        """The first of so many counters for forced ids that nobody has had before."""
        ...

    def expire(self, before: float) -> int:
        """Let go what is of midpoints before a time; how many detector-visits."""
        ...


@dataclass(slots=True)
class FolderArchive:
    """An archive in a folder; every file is written aside and renamed."""

    folder: Path
    noise_steps: float = 8.0
    _seen: dict[str, Kept] = field(default_factory=dict)

    def keep(self, visit: Visit, detector: int, planes: Planes) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(visit.visit, detector)
        aside = path.with_name(f".{path.name}.writing")
        parts = _packed(visit, detector, planes, self.noise_steps)
        with aside.open("wb") as file:
            np.savez(file, allow_pickle=False, **{name: np.frombuffer(part, np.uint8) for name, part in parts.items()})
        os.replace(aside, path)
        self._seen.pop(path.name, None)
        return path.stat().st_size

    def kept(self, since: float, until: float) -> list[Kept]:
        found = [self._kept(path) for path in sorted(self.folder.glob("[0-9]*_[0-9]*.npz"))]
        return sorted((kept for kept in found if since <= kept.visit.mjd_tai < until),
                      key=lambda kept: (kept.visit.mjd_tai, kept.visit.visit, kept.detector))

    def pixels(self, kept: Kept) -> Pixels:
        path = self._path(kept.visit.visit, kept.detector)
        with _opened(path) as parts:
            facts = json.loads(parts["facts"].tobytes())
            ny, nx = kept.shape
            image = _whole(parts["difference"].tobytes(), ny * nx) * np.float32(facts["step"])
            variance = np.exp(np.float32(LOG_STEP) * _whole(parts["variance"].tobytes(), ny * nx))
            variance *= np.float32(facts["variance"])
            bad = np.unpackbits(np.frombuffer(zlib.decompress(parts["bad"].tobytes()), np.uint8), count=ny * nx)
            basis = np.frombuffer(zlib.decompress(parts["psf"].tobytes()), np.float32).reshape(facts["psf_basis"])
        return KeptPixels(image.reshape(ny, nx), variance.reshape(ny, nx), bad.reshape(ny, nx).astype(np.int32),
                          Psf(basis.astype(float), int(facts["psf_order"]), kept.shape), float(facts["noise_scale"]),
                          kept.wcs)

    def reserve(self, kept: Kept, count: int) -> int:
        path = self._path(kept.visit.visit, kept.detector).with_suffix(".next")
        first = int(path.read_text()) if path.is_file() else FIRST_ID
        write_whole(path, str(first + count).encode(), path.with_name(f".{path.name}.writing"))
        return first

    def expire(self, before: float) -> int:
        old = self.kept(-np.inf, before)
        for kept in old:
            path = self._path(kept.visit.visit, kept.detector)
            self._seen.pop(path.name, None)
            path.unlink(missing_ok=True)
            path.with_suffix(".next").unlink(missing_ok=True)
        return len(old)

    def size(self) -> int:
        """Bytes of all that is kept."""
        return sum(path.stat().st_size for path in self.folder.glob("[0-9]*_[0-9]*.npz"))

    def _path(self, visit: int, detector: int) -> Path:
        return self.folder / f"{int(visit):d}_{int(detector):d}.npz"

    def _kept(self, path: Path) -> Kept:
        if path.name not in self._seen:
            with _opened(path) as parts:
                facts = json.loads(parts["facts"].tobytes())
            if facts.get("form") != FORM:
                raise InputError(f"{path}: kept in form {facts.get('form')!r}, this program reads {FORM}")
            self._seen[path.name] = Kept(Visit(**facts["visit"]), int(facts["detector"]), _wcs(facts["wcs"]),
                                         (int(facts["shape"][0]), int(facts["shape"][1])))
        return self._seen[path.name]


@dataclass(frozen=True, slots=True)
class KeptPixels:
    """`Pixels` of a difference alone."""

    image: np.ndarray        # (ny, nx) float32 [nJy]
    variance: np.ndarray     # (ny, nx) float32 [nJy^2]
    bad: np.ndarray          # (ny, nx) int32, 1 where a pixel takes no part
    psf: Psf
    noise_scale: float
    wcs: Wcs

    def force(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """FORCED rows: PSF fluxes at sky positions [deg] on the difference; NaN off the image."""
        x, y = (np.atleast_1d(c) for c in self.wcs.pixels(np.asarray(ra, float), np.asarray(dec, float)))
        rows = empty(FORCED, len(x))
        ny, nx = self.image.shape
        inside = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
        rows["x"], rows["y"], rows["inside"] = x, y, inside
        rows["flag_noGoodPixels"], rows["flag_edge"] = ~inside, ~inside
        found = force(self.image, self.variance, self.bad, PsfModel.of(self.psf), x[inside], y[inside],
                      noise_scale=self.noise_scale)
        rows["psfFlux"][inside], rows["psfFluxErr"][inside] = found.flux, found.error
        rows["flag_edge"][inside], rows["flag_noGoodPixels"][inside] = found.edge, found.empty
        return rows

    def close(self) -> None:
        """Nothing to let go."""


@dataclass(slots=True)
class MemoryArchive:
    """An archive in memory of whatever answers `force`: tests, and detectors of catalogue fidelity."""

    entries: dict[tuple[int, int], tuple[Kept, Pixels]] = field(default_factory=dict)
    _next: dict[tuple[int, int], int] = field(default_factory=dict)

    def keep(self, visit: Visit, detector: int, planes: Planes) -> int:
        pixels = KeptPixels(planes.image, planes.variance, planes.bad.astype(np.int32), planes.psf, planes.noise_scale,
                            planes.wcs)
        self.put(Kept(visit, detector, planes.wcs, (planes.image.shape[0], planes.image.shape[1])), pixels)
        return planes.image.nbytes + planes.variance.nbytes + planes.bad.nbytes

    def put(self, kept: Kept, pixels: Pixels) -> None:
        """Keep what answers `force` itself."""
        self.entries[kept.visit.visit, kept.detector] = kept, pixels

    def kept(self, since: float, until: float) -> list[Kept]:
        return sorted((kept for kept, _ in self.entries.values() if since <= kept.visit.mjd_tai < until),
                      key=lambda kept: (kept.visit.mjd_tai, kept.visit.visit, kept.detector))

    def pixels(self, kept: Kept) -> Pixels:
        return self.entries[kept.visit.visit, kept.detector][1]

    def reserve(self, kept: Kept, count: int) -> int:
        key = kept.visit.visit, kept.detector
        first = self._next.get(key, FIRST_ID)
        self._next[key] = first + count
        return first

    def expire(self, before: float) -> int:
        old = self.kept(-np.inf, before)
        for kept in old:
            del self.entries[kept.visit.visit, kept.detector]
        return len(old)


# --- packing ---------------------------------------------------------------------------------------------------------


def _packed(visit: Visit, detector: int, planes: Planes, noise_steps: float) -> dict[str, bytes]:
    """The parts of a file."""
    known = np.isfinite(planes.image) & np.isfinite(planes.variance) & (planes.variance > 0)
    good = known & ~planes.bad
    typical = float(np.median(planes.variance[good])) if good.any() else 1.0
    step = np.sqrt(typical) / noise_steps
    image = np.rint(np.clip(np.where(known, planes.image, np.float32(0)) / np.float32(step), -2.0**30, 2.0**30))
    variance = np.rint(np.log(np.where(known, planes.variance, np.float32(typical)) / np.float32(typical))
                       / np.float32(LOG_STEP))
    basis = planes.psf.basis.astype(np.float32)
    facts = {"form": FORM, "visit": asdict(visit), "detector": int(detector), "shape": list(planes.image.shape),
             "wcs": asdict(planes.wcs), "step": float(step), "variance": typical,
             "noise_scale": float(planes.noise_scale), "psf_basis": list(basis.shape),
             "psf_order": int(planes.psf.order)}
    return {"facts": json.dumps(facts).encode(), "difference": _deflated(image.astype(np.int32)),
            "variance": _deflated(variance.astype(np.int32)),
            "bad": zlib.compress(np.packbits(planes.bad | ~known).tobytes(), 6),
            "psf": zlib.compress(basis.tobytes(), 6)}


def _deflated(values: np.ndarray) -> bytes:
    """Whole numbers with their signs in the last bit, the first bytes of all, then the second, ..., deflated.

    Noise has no repetitions to look for: run lengths and Huffman codes are all that helps, and fast.
    """
    flat = np.ascontiguousarray(values, "<i4").ravel()
    planes = ((flat << 1) ^ (flat >> 31)).view(np.uint8).reshape(-1, 4)
    coder = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    parts = [coder.compress(np.ascontiguousarray(planes[:, k]).tobytes()) for k in range(4)]
    return b"".join([*parts, coder.flush()])


def _whole(data: bytes, count: int) -> np.ndarray:
    """The whole numbers of `_deflated`, as float32."""
    planes = np.empty((count, 4), np.uint8)
    for k, plane in enumerate(np.frombuffer(zlib.decompress(data), np.uint8).reshape(4, count)):
        planes[:, k] = plane
    folded = planes.view("<u4").ravel()
    return np.asarray(((folded >> 1).view("<i4") ^ -(folded & 1).view("<i4")).astype(np.float32))


def _wcs(facts: dict[str, Any]) -> Wcs:
    crpix, crval, cd = (tuple(map(float, facts[name])) for name in ("crpix", "crval", "cd"))
    x, y = (tuple((int(p), int(q), int(r), float(c)) for p, q, r, c in facts[name])
            for name in ("distortion_x", "distortion_y"))
    return Wcs((crpix[0], crpix[1]), (crval[0], crval[1]), (cd[0], cd[1], cd[2], cd[3]), str(facts["kind"]), x, y)


class _opened:
    """An archive's file; InputError names it where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Any:
        try:
            self._file = np.load(self._path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{self._path}: not a kept difference ({error})") from None
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, KeyError | zlib.error | ValueError):
            raise InputError(f"{self._path}: not a kept difference ({error})") from None
