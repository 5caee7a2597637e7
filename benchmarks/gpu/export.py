"""Writes the compiled functions of ResNet50 as HLO, for XLA on a machine without TensorFlow.

    python benchmarks/gpu/export.py FOLDER [--batches 64 256] [--policies mixed_float16]

The module that TensorFlow hands to XLA depends on the device only after XLA has optimized it. Its
weights are parameters: `parameters.draw` makes them on both machines. Each function gives NAME.hlo
and NAME.json, the shapes and dtypes of its parameters. For a batch of 4 there is also NAME.npy,
TensorFlow's result on this machine. With `--optimized` the counts of some operations in XLA's own
module for this CPU are printed: loops, conversions and transpositions.
"""

import argparse
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from parameters import draw

from kgradcam import GradCAM

CHECKED = 4
"""The batch whose results are compared with TensorFlow's."""


def write(folder: Path, name: str, function: Any, arguments: list[Any], optimized: bool) -> None:
    concrete = function.get_concrete_function(*arguments)
    ir = function.experimental_get_compiler_ir(*arguments)
    (folder / f"{name}.hlo").write_bytes(ir(stage="hlo_serialized"))
    by_handle = {id(each.handle): each for each in concrete.graph.variables}
    variables = [by_handle[id(each)] for each in concrete.captured_inputs]
    specs = [(list(each.shape), each.dtype.name) for each in (*arguments, *variables)]
    (folder / f"{name}.json").write_text(json.dumps(specs))
    if arguments[0].shape[0] == CHECKED:
        values = draw(specs)
        for variable, value in zip(variables, values[len(arguments) :], strict=True):
            variable.assign(value)
        given = [tf.constant(value) for value in values[: len(arguments)]]
        result = tf.nest.flatten(function(*given))[0]
        np.save(folder / f"{name}.npy", tf.cast(result, tf.float32).numpy())
    print(f"{name}: {len(specs)} parameters", flush=True)
    if optimized:
        module = ir(stage="optimized_hlo")
        operations = Counter(re.findall(r" = \S+ ([a-z-]+)\(", module))
        wanted = ("while", "convert", "transpose", "copy", "convolution", "dot", "fusion")
        print("  optimized: " + ", ".join(f"{each} {operations[each]}" for each in wanted))


def make_functions(model: keras.Model) -> tuple[Any, Any]:
    """The forward pass and the heatmaps of a model, compiled by XLA."""
    cam = GradCAM(model, jit_compile=True)

    @tf.function(jit_compile=True, autograph=False)
    def forward(images: Any) -> Any:
        return model(images, training=False)

    @tf.function(jit_compile=True, autograph=False)
    def heatmaps(images: Any, groups: Any) -> Any:
        return cam._computation.explain(images, groups)[0]

    return forward, heatmaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[CHECKED, 64, 256])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--policies", nargs="+", default=["float32", "mixed_float16"])
    parser.add_argument("--optimized", action="store_true", help="count operations, slower")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    side = options.size
    for policy in options.policies:
        keras.mixed_precision.set_global_policy(policy)
        model = keras.applications.ResNet50(
            weights=None, input_shape=(side, side, 3), classifier_activation=None
        )
        forward, heatmaps = make_functions(model)
        for batch in options.batches:
            images = tf.zeros((batch, side, side, 3))
            write(options.folder, f"forward-{policy}-{batch}", forward, [images], options.optimized)
            for count in (1, 20):
                groups = tf.constant(np.arange(count, dtype=np.int32).reshape(1, count, 1))
                name = f"gradcam{count}-{policy}-{batch}"
                write(options.folder, name, heatmaps, [images, groups], options.optimized)


if __name__ == "__main__":
    main()
