"""The median against numpy's, gaps included, and the network that makes it fast."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftermap.median import median_filter, middle, network


@settings(max_examples=40)
@given(st.integers(1, 75), st.integers(1, 40), st.sampled_from([1, 3, 5, 7]), st.floats(0, 1), st.integers(0, 9))
def test_it_is_the_median_of_what_was_observed(height: int, width: int, size: int, gaps: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(2, height, width)).astype(np.float32)
    image[rng.random(image.shape) < gaps] = np.nan
    half = size // 2
    padded = np.pad(image, ((0, 0), (half, half), (half, half)), constant_values=np.nan)
    expected = image.copy()
    for at in np.argwhere(~np.isnan(image)):
        k, y, x = at
        expected[k, y, x] = np.nanmedian(padded[k, y : y + size, x : x + size])
    np.testing.assert_array_equal(median_filter(image, size), expected)


@pytest.mark.parametrize("size", [3, 5, 7])
def test_the_network_brings_the_median_to_the_middle(size: int) -> None:
    """By the zero-one principle it is enough to try zeros and ones, here in sorted columns."""
    columns = np.random.default_rng(size).random((size, size, 4000)) < np.linspace(0.2, 0.8, 4000)
    values = np.sort(columns, axis=0).reshape(size * size, -1).astype(np.float32)
    expected = np.sort(values, axis=0)[size * size // 2]
    for one, other, keeps_low, keeps_high in network(size):
        low, high = np.minimum(values[one], values[other]), np.maximum(values[one], values[other])
        values[one] = low if keeps_low else np.nan
        values[other] = high if keeps_high else np.nan
    np.testing.assert_array_equal(values[middle(size)], expected)
