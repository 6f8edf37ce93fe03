import numpy as np
import pytest

from simulators.streams import stream


def test_a_stream_depends_on_its_key_alone() -> None:
    first = stream(3, "noise", 2027082200001, 94).normal(size=5)
    stream(3, "noise", 2027082200002, 94).normal(size=1000)
    assert np.array_equal(first, stream(3, "noise", 2027082200001, 94).normal(size=5))


def test_streams_of_different_keys_are_uncorrelated() -> None:
    keys = [(3, "noise", 1, 1), (4, "noise", 1, 1), (3, "photons", 1, 1), (3, "noise", 2, 1), (3, "noise", 1, 2)]
    draws = np.array([stream(*key).normal(size=4000) for key in keys])
    off = np.corrcoef(draws)[np.triu_indices(len(keys), 1)]
    assert np.abs(off).max() < 4.5 / np.sqrt(4000)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        stream(-1, "noise")
