"""Several GPUs: each holds the weights of the model, and a part of every batch."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def all_gpus() -> Any:
    """Returns the strategy that places a model on all GPUs; the default strategy below two GPUs."""
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def compile_for_replicas(
    function: Callable[..., Any], signature: Sequence[Any], strategy: Any, jit_compile: bool
) -> Any:
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
        A `tf.function` with the same arguments and results; it traces `function` once a replica.
    """
    compiled = tf.function(
        function, input_signature=signature, jit_compile=jit_compile, autograph=False
    )
    replicas = strategy.num_replicas_in_sync
    if replicas == 1 or not isinstance(strategy, tf.distribute.MirroredStrategy):
        return compiled

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
