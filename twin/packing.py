"""Values as bytes and back: what a cache keeps of frozen dataclasses, arrays and what holds them, and no code.

    values           bytes, with the dataclasses' names and where in `arrays` each array lies
    arrays           one after another, mapped into memory when read: what nobody looks at is not read

Floats, dtypes, orders of axes and the kinds of containers come back as they were. Whole planes of integers, masks above
all, are deflated. Only dataclasses of our own packages are made again, from their fields; paths lie in the folder that
holds the files, and come back relative to where it is then.
"""

import ast
import math
import mmap
import zlib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec
import numpy as np

PACKAGES: Final = ("twin", "pipeline", "schemas", "simulators")
ALIGNED: Final = 64
DEFLATED: Final = 1 << 16      # bytes of an array of integers from which on it is deflated
TAG: Final = "!"


class PackingError(ValueError):
    """A value that cannot be kept, or bytes that are none."""


def pack(value: Any, arrays: BinaryIO, folder: Path) -> bytes:
    """The bytes of a value whose arrays are appended to a file; paths in it lie in `folder`."""
    return msgspec.msgpack.encode(_Packer(arrays, folder).tree(value))


def unpack(data: bytes, arrays: Path, folder: Path) -> Any:
    """The value again; its arrays are writable views of the file, and what is written to them stays with them."""
    with arrays.open("rb") as file:
        size = arrays.stat().st_size
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) if size else b""
    try:
        return _value(msgspec.msgpack.decode(data), mapped, folder)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError, ImportError, zlib.error) as error:
        raise PackingError(f"not a packed value: {error}") from error


class _Packer:
    """Values to trees of plain ones."""

    def __init__(self, arrays: BinaryIO, folder: Path) -> None:
        self._arrays, self._folder = arrays, folder

    def tree(self, value: Any) -> Any:
        if isinstance(value, np.generic):
            return {TAG: "scalar", "dtype": _described(value.dtype), "bytes": value.tobytes()}
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return value
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, list):
            return [self.tree(item) for item in value]
        if isinstance(value, tuple):
            stack = _stack(value)
            return self._stack(stack) if stack else {TAG: "tuple", "items": [self.tree(item) for item in value]}
        if isinstance(value, dict):
            return {TAG: "dict", "items": [[self.tree(k), self.tree(v)] for k, v in value.items()]}
        if isinstance(value, Path):
            return {TAG: "path", "path": value.relative_to(self._folder).as_posix()}
        if is_dataclass(value) and not isinstance(value, type):
            name = f"{type(value).__module__}:{type(value).__qualname__}"
            if _class(name) is not type(value):
                raise PackingError(f"{name} is not found under its name")
            return {TAG: "data", "of": name,
                    "fields": {f.name: self.tree(getattr(value, f.name)) for f in fields(value)}}
        raise PackingError(f"a {type(value).__name__} cannot be kept")

    def _array(self, value: np.ndarray) -> dict[str, Any]:
        if value.dtype.hasobject:
            raise PackingError("an array of objects cannot be kept")
        order: Literal["C", "F"] = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        return {TAG: "array", "dtype": _described(value.dtype), "shape": list(value.shape), "order": order,
                **self._bytes(value.tobytes(order), value.dtype.kind in "iub")}

    def _stack(self, arrays: tuple[np.ndarray, ...]) -> dict[str, Any]:
        """Many arrays of one dtype as one."""
        return {TAG: "stack", "dtype": _described(arrays[0].dtype), "shapes": [list(a.shape) for a in arrays],
                **self._bytes(b"".join(a.tobytes() for a in arrays), arrays[0].dtype.kind in "iub")}

    def _bytes(self, data: bytes, integers: bool) -> dict[str, Any]:
        deflated = integers and len(data) >= DEFLATED
        kept = zlib.compress(data, 1) if deflated else data
        self._arrays.write(b"\0" * (-self._arrays.tell() % ALIGNED))
        at = self._arrays.tell()
        self._arrays.write(kept)
        return {"at": at, "size": len(kept), "deflated": deflated}


def _stack(value: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
    """The tuple if it holds many plain arrays of one dtype in C order, as cutouts do; else an empty one."""
    if len(value) < 2 or not all(isinstance(item, np.ndarray) for item in value):
        return ()
    alike = all(item.dtype == value[0].dtype and item.ndim and item.flags.c_contiguous for item in value)
    return value if alike and not value[0].dtype.hasobject else ()


def _value(tree: Any, mapped: Any, folder: Path) -> Any:
    if isinstance(tree, list):
        return [_value(item, mapped, folder) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return _MAKERS[tree[TAG]](tree, mapped, folder)


def _tuple(tree: dict[str, Any], mapped: Any, folder: Path) -> Any:
    return tuple(_value(item, mapped, folder) for item in tree["items"])


def _dict(tree: dict[str, Any], mapped: Any, folder: Path) -> Any:
    return {_value(k, mapped, folder): _value(v, mapped, folder) for k, v in tree["items"]}


def _path(tree: dict[str, Any], mapped: Any, folder: Path) -> Any:
    return folder / tree["path"]


def _scalar(tree: dict[str, Any], mapped: Any, folder: Path) -> Any:
    return np.frombuffer(tree["bytes"], _dtype(tree["dtype"]))[0]


def _array(tree: dict[str, Any], mapped: Any, folder: Path) -> Any:
    return _at(tree, mapped, tuple(tree["shape"]), tree["order"])


def _arrays(tree: dict[str, Any], mapped: Any, folder: Path) -> Any:
    sizes = [math.prod(shape) for shape in tree["shapes"]]
    flat = _at(tree, mapped, (sum(sizes),), "C")
    ends = accumulate(sizes)
    return tuple(flat[end - size:end].reshape(shape)
                 for shape, size, end in zip(tree["shapes"], sizes, ends, strict=True))


def _at(tree: dict[str, Any], mapped: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
    dtype, at, size = _dtype(tree["dtype"]), tree["at"], tree["size"]
    if 0 in shape:
        return np.empty(shape, dtype, order)
    if tree["deflated"]:
        return np.ndarray(shape, dtype, bytearray(zlib.decompress(mapped[at:at + size])), order=order)
    return np.ndarray(shape, dtype, mapped, at, order=order)


def _data(tree: dict[str, Any], mapped: Any, folder: Path) -> Any:
    return _class(tree["of"])(**{name: _value(item, mapped, folder) for name, item in tree["fields"].items()})


_MAKERS: Final[dict[str, Callable[[dict[str, Any], Any, Path], Any]]] = {
    "tuple": _tuple, "dict": _dict, "path": _path, "scalar": _scalar, "array": _array, "stack": _arrays, "data": _data}


@cache
def _class(name: str) -> Any:
    module, _, qualified = name.partition(":")
    if module.partition(".")[0] not in PACKAGES:
        raise PackingError(f"{name} is not ours")
    found: Any = import_module(module)
    for part in qualified.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and is_dataclass(found)):
        raise PackingError(f"{name} is not a dataclass")
    return found


def _described(dtype: np.dtype) -> str:
    return repr(np.lib.format.dtype_to_descr(dtype))


@cache
def _dtype(described: str) -> np.dtype:
    return np.lib.format.descr_to_dtype(ast.literal_eval(described))


__all__ = ["PackingError", "pack", "unpack"]
