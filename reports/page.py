"""What every page is made with: its template, plain values for machines, and files that appear whole or not at all."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from reports.store import StoreError


@dataclass(frozen=True, slots=True)
class Table:
    """A small table of a page, cells as text."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def rendered(template: str, **values: Any) -> str:
    """A page from a template beside this module: text is escaped, an unknown name is an error."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(**values)


def chip(good: bool, yes: str = "met", no: str = "not met") -> Markup:
    """A verdict as a coloured cell of a table."""
    return Markup('<span class="v v-{}">{}</span>').format("pass" if good else "fail", yes if good else no)


def written(path: Path, text: str) -> Path:
    """Write a file aside and rename it; StoreError where that cannot be."""
    aside = path.parent / f".{path.name}.writing"
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def plain(value: Any) -> Any:
    """Numbers, text, lists and dicts alone; NaN and infinities become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        if value.dtype.names:
            return [{name: plain(row[name].item()) for name in value.dtype.names} for row in value]
        return [plain(v) for v in value.tolist()]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


__all__ = ["Table", "chip", "plain", "rendered", "written"]
