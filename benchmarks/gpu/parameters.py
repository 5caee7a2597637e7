"""Weights and images drawn from their shapes: the machine with the GPU needs no file of them."""

import math

import numpy as np


def draw(specs: list[tuple[list[int], str]], seed: int = 0) -> list[np.ndarray]:
    """Returns an array for each `(shape, dtype)`, of realistic size; the same on every machine.

    Integers are groups of outputs, `[1, classes, 1]`: the classes from 0 up.
    """
    generator = np.random.default_rng(seed)
    found = []
    for shape, dtype in specs:
        if dtype == "int32":
            values = np.arange(math.prod(shape)).reshape(shape)
        elif len(shape) == 4 and shape[-1] == 3:
            values = generator.normal(size=shape)
        elif len(shape) >= 2:
            values = generator.normal(size=shape) * np.sqrt(2 / math.prod(shape[:-1]))
        else:  # scales and variances of normalizations; as offsets and biases they do no harm
            values = np.abs(1 + 0.1 * generator.normal(size=shape))
        found.append(values.astype(dtype))
    return found
