"""Compiled functions: one trace each, with or without XLA, on one device or on several GPUs.

Each GPU holds the weights of the model, and a part of every batch.
"""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kgradcam.errors import UserError

_log = logging.getLogger(__name__)


_state = {"forked": False}


def _after_fork() -> None:
    threads = tf.config.threading.get_inter_op_parallelism_threads()
    try:
        # TensorFlow refuses any change once it has started its threads.
        tf.config.threading.set_inter_op_parallelism_threads(threads + 1)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        _state["forked"] = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def require_threads() -> None:
    """Raises in a process that was forked after TensorFlow had started: it would wait for ever.

    Raises:
        UserError: The threads of TensorFlow are those of the parent process.
    """
    if _state["forked"]:
        raise UserError(
            "This process was forked after TensorFlow had started, and has none of its threads. "
            "Start processes with multiprocessing.get_context('spawn')."
        )


class Compiled:
    """A `tf.function` of one signature, which is traced when it is first called.

    It runs as a graph also under `tf.config.run_functions_eagerly(True)`. Where XLA cannot compile
    an operation, it is traced once more without XLA, with a warning.
    """

    def __init__(self, make: Callable[[bool], Any], jit_compile: bool) -> None:
        """Keeps the function.

        Args:
            make: Maps whether XLA compiles to a `tf.function` with an `input_signature`.
            jit_compile: Whether XLA compiles.
        """
        self._make, self._jit_compile = make, jit_compile
        self._function = make(jit_compile)

    def get_concrete_function(self) -> Any:
        """Traces the function, unless it is traced already."""
        return self._function.get_concrete_function()

    def __call__(self, *arguments: Any) -> Any:
        """Runs the function on tensors of its signature."""
        try:
            return self.get_concrete_function()(*arguments)
        except tf.errors.ResourceExhaustedError:
            raise
        except tf.errors.OpError as error:
            if not self._jit_compile:
                raise
            function = self._make(False)
            # Also without XLA it may fail, on images that do not fit.
            found = function.get_concrete_function()(*arguments)
            reason = str(error.message).strip().splitlines()[0]
            _log.warning("XLA cannot compile this model, which runs without: %s", reason)
            self._function, self._jit_compile = function, False
            return found


def all_gpus() -> Any:
    """Returns the strategy that places a model on all GPUs; the default strategy below two GPUs."""
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def compile_for_replicas(
    function: Callable[..., Any], signature: Sequence[Any], strategy: Any, jit_compile: bool
) -> Compiled:
    """Compiles a function of a model, and splits its batches among the model's replicas.

    Each replica gets a run of consecutive images, all of equal length. The last image is repeated
    to fill them, and the results of the repetitions are dropped. The replicas run at the same time,
    so repetitions take no longer.

    Args:
        function: Maps tensors to tensors, all with the batch first. An argument with one row
            applies to the whole batch.
        signature: The specs of its arguments; the first axis of the first is the batch.
        strategy: The strategy of the model. Batches are split under
            `tf.distribute.MirroredStrategy`; under any other the function runs on one device.
        jit_compile: Whether XLA compiles it, separately for each device.

    Returns:
        The compiled function; it traces `function` once a replica.
    """

    def compiled(jit: bool) -> Any:
        return tf.function(function, input_signature=signature, jit_compile=jit, autograph=False)

    if isinstance(strategy, tf.distribute.MirroredStrategy) and strategy.num_replicas_in_sync > 1:
        return Compiled(lambda jit: _shared(compiled(jit), signature, strategy), jit_compile)
    return Compiled(compiled, jit_compile)


def _shared(compiled: Any, signature: Sequence[Any], strategy: Any) -> Any:
    """Splits the batches of a `tf.function` among replicas."""
    replicas = strategy.num_replicas_in_sync

    def share(*arguments: Any) -> Any:
        batch = tf.shape(tf.nest.flatten(arguments)[0])[0]
        each = (batch + replicas - 1) // replicas

        def part(context: Any) -> Any:
            places = context.replica_id_in_sync_group * each + tf.range(each)
            return tf.nest.map_structure(
                lambda tensor: tf.gather(tensor, tf.minimum(places, tf.shape(tensor)[0] - 1)),
                arguments,
            )

        parts = strategy.experimental_distribute_values_from_function(part)
        # Wrapped in a lambda so that MirroredStrategy does not see a tf.function: it would compile
        # all replicas as one program, which XLA cannot.
        found = strategy.run(lambda given: compiled(*given), (parts,))
        return tf.nest.map_structure(
            lambda tensor: tf.concat(strategy.experimental_local_results(tensor), 0)[:batch], found
        )

    return tf.function(share, input_signature=signature, autograph=False)
