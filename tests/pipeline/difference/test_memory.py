"""Planes come back on memory that nothing holds any more, and on none that something does."""

import numpy as np
import pytest

from pipeline.difference import memory

SHAPE = (1500, 1500)      # 9 MB


@pytest.fixture(autouse=True)
def _empty() -> None:
    memory._free.clear()


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_a_plane_that_is_gone_is_the_next_one() -> None:
    first = memory.plane(SHAPE)
    where = address(first)
    del first
    assert address(memory.plane(SHAPE, np.int32)) == where


def test_a_plane_stays_while_a_part_of_it_is_in_use() -> None:
    first = memory.plane(SHAPE)
    first[:] = 7.0
    part = first[5:, ::3].T
    del first
    second = memory.plane(SHAPE)
    second[:] = 1.0
    assert (part == 7.0).all()
    assert not np.shares_memory(part, second)


def test_small_planes_and_those_of_another_size_are_fresh() -> None:
    first = memory.plane(SHAPE)
    where = address(first)
    del first
    other = memory.plane((1500, 1600))
    assert address(other) != where
    assert memory.plane((10, 10)).flags.owndata


def test_what_waits_is_bounded() -> None:
    held = [memory.plane(SHAPE) for _ in range(memory.KEPT + 3)]
    del held
    assert len(memory._free) == memory.KEPT


def test_scratch_lies_on_a_waiting_plane_that_comes_back_whole() -> None:
    first = memory.plane(SHAPE)
    where = address(first)
    del first
    part = memory.scratch((1400, 1500))
    assert address(part) == where
    assert address(memory.plane(SHAPE)) != where
    del part
    assert address(memory.scratch((9, 9))) != where
    assert sorted(len(block) for block in memory._free) == [4 * 1500 * 1500] * 2
