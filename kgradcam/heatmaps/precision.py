"""The precisions and compilers that this machine computes fast."""

import os
from pathlib import Path
from typing import Any

import tensorflow as tf

from kgradcam.errors import UserError, did_you_mean

_REQUIREMENTS = {
    "bfloat16": "a CPU with AVX512-BF16 or AMX, oneDNN, and no GPU in use",
    "float16": "a GPU with tensor cores",
}


def choose_precision(precision: str) -> str:
    """Returns a precision by name, or the one that `"auto"` selects on this machine.

    Args:
        precision: `"float32"`; `"bfloat16"`, on CPUs with AVX512-BF16 or AMX; `"float16"`, on GPUs
            with tensor cores; or `"auto"`: the reduced one that this machine has, else float32.

    Raises:
        UserError: There is no such precision, or this machine does not have it.
    """
    has = {"float32": True, "bfloat16": not _gpus() and _cpu_has_bfloat16()}
    has["float16"] = any(_has_tensor_cores(gpu) for gpu in _gpus())
    if precision == "auto":
        return next(name for name in ("float16", "bfloat16", "float32") if has[name])
    if precision not in has:
        raise UserError(
            f"precision={precision!r} is none of auto, {', '.join(has)}."
            f"{did_you_mean(precision, ['auto', *has])}"
        )
    if not has[precision]:
        raise UserError(
            f"precision={precision!r} needs {_REQUIREMENTS[precision]}. This machine has none; "
            "auto selects what it has, float32 always works."
        )
    return precision


def prefers_xla(specs: Any) -> bool:
    """Returns whether XLA is worth its compilation: on a GPU, for inputs of a fixed size.

    XLA compiles once for each shape. Measured on a CPU it is no faster.
    """
    fixed = all(None not in spec.shape[1:] for spec in tf.nest.flatten(specs))
    return fixed and bool(_gpus())


def _gpus() -> list[Any]:
    return list(tf.config.get_visible_devices("GPU"))


def _has_tensor_cores(gpu: Any) -> bool:
    details = tf.config.experimental.get_device_details(gpu)
    return details.get("compute_capability", (0, 0)) >= (7, 0)


def _cpu_has_bfloat16() -> bool:
    """Reads the CPU's flags on Linux; other systems do not list them in a file."""
    listing = Path("/proc/cpuinfo")
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0" or not listing.is_file():
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(listing.read_text().split())
