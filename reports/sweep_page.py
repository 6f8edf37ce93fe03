"""A sweep to one self-contained page, `sweep.html`: the surface, every platform, and the cheapest that will do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from reports.page import Table, chip, rendered, written
from reports.platform_page import Section, Tile, png_file
from reports.surface import MODELLED, Point, cheapest, nearest, plot, plot_prices

MOST: Final = 300              # platforms in the page's table, the cheapest of them; surface.csv has all

FIGURES: Final = (             # of the table, and what each is
    ("price [workers]", "workers that may be, and the servers of what is limited at their prices (`price` of each "
                        "service): assumed, for comparison alone"),
    ("requirement", "at most 1 % of visits with fewer than 98 % of their alerts within 60 s of the end of readout, and "
                    "at most 0.1 % with none"),
    ("half, 98 % [s]", "delay of that share of the night's alerts since the end of readout, those never sent at "
                       "infinity; the night's alerts are all that the sky and the templates allow"),
    ("within 60 s, 120 s", "share of the night's alerts"),
    ("late, failed", "share of visits with fewer than 98 % within 60 s; with no alerts at all"),
    ("sent", "share of the night's alerts"),
    ("held", "workers at a message, mean from the first message to the end of the night"),
    ("longest wait [s]", "of a message for its worker"))


def render_sweep(folder: Path, points: Sequence[Point], title: str, circumstances: Sequence[tuple[str, str]]) -> Path:
    """Write `surface.png`, `prices.png` and `sweep.html` into a folder; the page's path."""
    images = [(png_file(folder / f"{name}.png", figure), caption) for name, figure, caption in (
        ("surface", plot(points), "98 % of the night's alerts are out after so long: the latency surface. A star marks "
                                  "the cheapest platform that meets the requirement."),
        ("prices", plot_prices(points), "The same against what each platform is to cost."))]
    verdict = said(points)
    page = rendered("platform.html", name=folder.resolve().name, title=title,
                    description=f"{verdict[0].upper()}{verdict[1:]}.", circumstances=circumstances, tiles=tiles(points),
                    sections=[
        Section("surface", "Latency of each platform", MODELLED, [], images),
        Section("platforms", "Platforms", MODELLED,
                [] if len(points) <= MOST else [f"The {MOST} cheapest of {len(points)}; surface.csv has all."],
                tables=[_table(points)]),
        Section("figures", "What each figure is", MODELLED, tables=[Table(("figure", "what it is"), FIGURES)])])
    return written(folder / "sweep.html", page)


def tiles(points: Sequence[Point]) -> list[Tile]:
    """The numbers to see first."""
    best = cheapest(points)
    near = best or nearest(points)
    return [
        Tile("platforms", f"{len(points)}", f"{sum(point.met for point in points)} meet the requirement"),
        Tile("cheapest that does", f"{best.price:g}" if best else "none", "price in workers" if best else
             "the nearest is shown beside"),
        *(Tile(_short(key), value, "of the cheapest" if best else "of the nearest") for key, value in near.settings),
        Tile("98 % of alerts within", f"{near.p98_s:.1f} s" if near.p98_s < float("inf") else "never",
             "of the end of readout, there"),
        Tile("visits late", f"{near.late:.2%}", "at most 1 % are allowed")]


def said(points: Sequence[Point]) -> str:
    """Which platform is the cheapest that meets the requirement, or the nearest to it, in a sentence."""
    best = cheapest(points)
    if best is None:
        near = nearest(points)
        return (f"none meets the requirement; nearest is {near.name} with {near.late:.1%} of visits late and "
                f"{near.failed:.1%} failed, 98 % of alerts within {near.p98_s:.1f} s")
    return (f"the cheapest that meets the requirement: {best.name}, price {best.price:g} workers, 98 % of alerts "
            f"within {best.p98_s:.1f} s, {best.late:.2%} of visits late")


def _table(points: Sequence[Point]) -> Table:
    best = cheapest(points)
    rows = sorted(points, key=lambda point: (not point.met, point.price, point.p98_s))[:MOST]
    keys = [_short(key) for key, _ in points[0].settings]
    return Table((*keys, "price [workers]", "requirement", "half, 98 % [s]", "within 60 s, 120 s", "late, failed",
                  "sent", "held", "longest wait [s]"), [
        (*(value for _, value in p.settings), f"{p.price:g}", chip(p.met, "cheapest" if p is best else "met"),
         f"{_s(p.p50_s)}, {_s(p.p98_s)}", f"{p.on_time:.1%}, {p.within_120:.1%}", f"{p.late:.1%}, {p.failed:.1%}",
         f"{p.sent:.1%}", f"{p.held:.0f}", _s(p.longest_wait_s)) for p in rows])


def _short(key: str) -> str:
    """A setting without the sections that most share."""
    return key.removeprefix("platform.").removeprefix("services.")


def _s(value: float) -> str:
    return f"{value:.1f}" if value < float("inf") else "never"


__all__ = ["render_sweep", "said", "tiles"]
