"""Runs what `export.py` wrote on this machine's accelerator, by the XLA of JAX.

    python benchmarks/gpu/run_xla.py FOLDER [--rounds 20]

Prints JSON lines: the device; and for each function its name, its batch, ms a batch (contenders in
turn, inputs on the device, results waited for), and the largest difference from TensorFlow's
result, relative to the highest value.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
from jax._src.lib import xla_client
from jaxlib import _jax
from parameters import draw


def load(path: Path, device: jax.Device):
    """Compiles a serialized module."""
    computation = xla_client.XlaComputation(path.read_bytes())
    module = _jax.mlir.xla_computation_to_mlir_module(computation)
    devices = xla_client.DeviceList((device,))
    return device.client.compile_and_load(module, devices, xla_client.CompileOptions())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    device = jax.devices()[0]
    print(json.dumps({"device": device.device_kind, "jax": jax.__version__}))
    contenders, rows = {}, {}
    for path in sorted(options.folder.glob("*.hlo")):
        specs = json.loads(path.with_suffix(".json").read_text())
        executable = load(path, device)
        arguments = [jax.device_put(each, device) for each in draw(specs)]

        def run(executable=executable, arguments=arguments):
            found = executable.execute_sharded(arguments).disassemble_into_single_device_arrays()
            return jax.block_until_ready(found)

        first = np.asarray(run()[0][0], np.float32)
        rows[path.stem] = {"name": path.stem, "batch": specs[0][0][0], "ms": []}
        if (expected := path.with_suffix(".npy")).exists():
            known = np.load(expected)
            difference = float(abs(first - known).max() / abs(known).max())
            rows[path.stem]["difference"] = difference
        else:
            contenders[path.stem] = run
    generator = np.random.default_rng(0)
    for _ in range(options.rounds):
        for name in generator.permutation(list(contenders)):
            start = time.perf_counter()
            contenders[name]()
            rows[name]["ms"].append(1000 * (time.perf_counter() - start))
    for row in rows.values():
        row["ms"] = float(np.median(row["ms"])) if row["ms"] else None
        print(json.dumps(row))


if __name__ == "__main__":
    main()
