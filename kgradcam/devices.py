"""Several GPUs at once: a model has its weights on each, and every batch is shared among them."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def all_gpus() -> Any:
    """Returns the strategy whose scope puts a model on all GPUs, or the default one below two."""
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def compile_for_replicas(
    function: Callable[..., Any], signature: Sequence[Any], strategy: Any, jit_compile: bool
) -> Any:
    """Compiles a function of a model, and shares its batches among the replicas of the model.

    Each replica takes equally many images, neighbours together. Where they do not come out even,
    the last image is repeated, and what was found for the repetitions is dropped: the replicas
    run at the same time, so these cost none.

    Args:
        function: Maps tensors to tensors, all with the batch first. Arguments with a single row
            mean it for the whole batch.
        signature: The specs of its arguments; the first axis of the first is the batch.
        strategy: The one that the model was made under. `tf.distribute.MirroredStrategy` shares;
            under any other the function runs on one device.
        jit_compile: Whether XLA compiles it, for each device by itself.

    Returns:
        A `tf.function` of the same arguments and results, that traces `function` once for each
        replica.
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
        # As a function that MirroredStrategy does not know for one: else it would compile all
        # replicas as a whole, which XLA cannot.
        found = strategy.run(lambda given: compiled(*given), (parts,))
        return tf.nest.map_structure(
            lambda tensor: tf.concat(strategy.experimental_local_results(tensor), 0)[:batch], found
        )

    return tf.function(share, input_signature=signature, autograph=False)
