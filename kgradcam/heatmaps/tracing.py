"""The traces of a live explainer, for the sizes that its model allows; checked by its outputs.

A trace with unknown sizes serves every batch. Some models need known ones: a bilinear UpSampling2D,
`y.shape[1]` in `call`, a fixed number of frames. Those are traced once for each size.
"""

import logging
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kgradcam.devices import Compiled, compile_for_replicas
from kgradcam.errors import UserError
from kgradcam.heatmaps.computation import Computation, TraceRecord
from kgradcam.heatmaps.inputs import as_tensors, check_inputs, input_specs, specs_of
from kgradcam.heatmaps.layers import keep_losses
from kgradcam.heatmaps.precision import prefers_xla

_log = logging.getLogger(__name__)

# Compiled and eager execution round differently; a half-precision network amplifies it.
_TOLERANCE = {"float32": 0.02, "float64": 0.02}
_HALF_TOLERANCE = 0.2
_CHECKED_IMAGES = 2
# Eager execution keeps every feature map of a model: half a kilobyte for each value in ResNet50.
_CHECKED_VALUES = 2**21
_NUDGE = 1e-5
_MANY_SIZES = 8


class _Pair(NamedTuple):
    explain: Compiled
    predict: Compiled


class LiveTraces:
    """Compiles a computation for the batches that come, and runs it.

    It is traced once, when the explainer is created, if the model takes unknown sizes. Otherwise it
    is traced once for each size of images, or, if it needs that too, for each length of a batch.

    Attributes:
        specs: The specs of the inputs, or `None` before the first batch of a model without them.
        jit_compile: Whether XLA compiles.
        records: The records of the traces, in their order.
        traced: The specs of the latest trace.
    """

    def __init__(self, computation: Computation, jit_compile: bool | None) -> None:
        self.specs = input_specs(computation.model)
        self.jit_compile = jit_compile
        self.records: list[TraceRecord] = []
        self.traced: Any = None
        self._computation = computation
        self._model = computation.model
        self._pairs: dict[Any, _Pair] = {}
        self._known_sizes = 0  # the index in `spec_choices`
        self._verified = False
        if self.specs is not None:
            self._trace_early()

    def prepare(self, images: Any) -> Any:
        """Converts a batch to the inputs of `explain`, and traces if none of the traces fits."""
        specs, tensors = self.specs, None
        if specs is None or self._is_for_preprocess(images):
            tensors = as_tensors(images)
            specs = specs_of(tensors)
        inputs = check_inputs(images, specs)
        before, self.specs = self.specs, specs
        try:
            if before is None:
                self._build(tensors)
            self._pair(inputs)
        except UserError:
            self.specs = before
            raise
        except Exception as error:
            self.specs = before
            user_mistake = isinstance(error, ValueError | TypeError | tf.errors.OpError)
            if before is not None or not user_mistake:
                raise
            shapes = ", ".join(str(tuple(each.shape)) for each in tf.nest.flatten(inputs))
            hint = " A single image needs a batch axis: images[np.newaxis]."
            raise UserError(
                f"{self._model.name} cannot be called on images of the shape {shapes}: "
                f"{_reason(error)}{hint if shapes.count(',') == 2 else ''}"
            ) from error
        return inputs

    def explain(self, inputs: Any, groups: Any) -> Any:
        """Runs `Computation.explain`; the first time its outputs are held to the model's.

        Images too large to run the model eagerly are not checked, and leave the check to others.

        Raises:
            UserError: The outputs of the trace differ from those of the model.
        """

        def run() -> Any:
            return self._pair(inputs).explain(inputs, groups)

        found, outputs = run()
        while not self._verified and _values_of_an_image(inputs) <= _CHECKED_VALUES:
            difference = self._difference(inputs, outputs, run)
            if difference <= self._tolerance:
                self._verified = True
                break
            self._known_sizes += 1
            if self._known_sizes == len(_spec_choices(self.specs, inputs)):
                self._known_sizes = 0
                raise UserError(
                    f"The outputs of {self._model.name} in the explainer differ from those of the "
                    f"model on this batch, by {difference:.1%} of the largest. Its call may depend "
                    "on Python state or on eager execution, so its heatmaps would be wrong."
                )
            found, outputs = run()
        return found

    def predict(self, inputs: Any, groups: Any) -> Any:
        """Runs `Computation.predict`."""
        return self._pair(inputs).predict(inputs, groups)[0]

    @property
    def _tolerance(self) -> float:
        return _TOLERANCE.get(self._model.compute_dtype, _HALF_TOLERANCE)

    def _is_for_preprocess(self, images: Any) -> bool:
        """Whether a batch is no input of the model itself, but one of `preprocess=`."""
        if self._computation.preprocess is None:
            return False
        try:
            check_inputs(images, self.specs)
        except UserError:
            flat, specs = tf.nest.flatten(images), tf.nest.flatten(self.specs)
            # A single image is a mistake in any case.
            return np.ndim(flat[0]) == specs[0].shape.rank or len(flat) != len(specs)
        return False

    def _trace_early(self) -> None:
        """Traces with the sizes that the model declares; at the first batch if that fails."""
        try:
            self._add(self.specs)
        except UserError:
            raise
        except Exception as error:
            # Which error it is depends on the model, as for `None * None` in its call.
            known = all(None not in spec.shape[1:] for spec in tf.nest.flatten(self.specs))
            if known and self._computation.preprocess is None:
                raise
            self._known_sizes = 0 if known else 1
            self._log_failure(error)

    def _pair(self, inputs: Any) -> _Pair:
        """The functions for a batch, with as many unknown sizes as the model can bear."""
        choices = _spec_choices(self.specs, inputs)
        while True:
            place = min(self._known_sizes, len(choices) - 1)
            pair = self._pairs.get(_shapes(choices[place]))
            if pair is not None:
                return pair
            try:
                return self._add(choices[place])
            except UserError:
                raise
            except Exception as error:
                if place == len(choices) - 1:
                    self._known_sizes = 0
                    raise
                self._known_sizes = place + 1
                self._log_failure(error)

    def _log_failure(self, error: Exception) -> None:
        _log.info(
            "%s is traced for the sizes of each batch; with unknown sizes it cannot be: %s",
            *(self._model.name, _reason(error)),
        )

    def _add(self, specs: Any) -> _Pair:
        if self.jit_compile is None:
            self.jit_compile = prefers_xla(specs)
        strategy = self._model.distribute_strategy
        pair = _Pair(
            *(
                compile_for_replicas(
                    self._recorded(function), signature_of(specs), strategy, self.jit_compile
                )
                for function in (self._computation.explain, self._computation.predict)
            )
        )
        pair.explain.get_concrete_function()
        self._pairs[_shapes(specs)], self.traced = pair, specs
        if len(self._pairs) == _MANY_SIZES:
            _log.warning(
                "%s is traced for each size of images, and this is the %dth. Resized to a few "
                "sizes, or padded, images are explained faster.",
                *(self._model.name, _MANY_SIZES),
            )
        return pair

    def _recorded(self, function: Callable[..., tuple[Any, TraceRecord]]) -> Callable[..., Any]:
        """Returns the tensors of a function with the model's outputs, and keeps its records.

        Losses, moving means, metrics and seeds of the model stay as they are.
        """

        def recorded(inputs: Any, groups: Any) -> Any:
            with keras.StatelessScope():
                tensors, record = keep_losses(lambda: function(inputs, groups))
            self.records.append(record)
            replicas = self._model.distribute_strategy.num_replicas_in_sync
            return tensors, list(record.outputs.values()) if replicas == 1 else []

        return recorded

    def _build(self, tensors: Any) -> None:
        """Creates the weights of a model by its first call; a trace must not create variables."""
        if not self._model.built:
            # Variables are created when the inner scope ends, and are not updated by this call.
            with self._model.distribute_strategy.scope(), keras.StatelessScope():
                self._call_model(tensors)

    def _call_model(self, inputs: Any) -> Any:
        return self._model(self._computation.preprocessed(inputs), training=False)

    def _difference(self, inputs: Any, outputs: list[Any], run: Callable[[], Any]) -> float:
        """Returns how far outputs of the trace are from the model's, in parts of the largest.

        `run` runs the trace again, in case another thread is training the model.
        """
        if not outputs:
            return 0.0
        places = next(each.outputs for each in self.records if each.outputs)  # not of `predict`

        def of_model(batch: Any) -> list[Any]:
            with keras.StatelessScope():
                found = keep_losses(lambda: self._call_model(batch))
            flat = tf.nest.flatten(found)
            return [flat[place].numpy() for place in places]

        count = min(_CHECKED_IMAGES, _CHECKED_VALUES // max(_values_of_an_image(inputs), 1))
        few = tf.nest.map_structure(lambda each: each[:count], inputs)
        expected = of_model(few)
        difference = _largest_difference(expected, outputs)
        if difference <= self._tolerance:
            return difference
        # Normalization over a batch, or a model that draws random numbers.
        expected = of_model(inputs)
        if (difference := _largest_difference(expected, outputs)) > self._tolerance:
            difference = _largest_difference(expected, run()[1])
        if difference > self._tolerance:
            if _largest_difference(expected, of_model(inputs)) > 0:
                _log.info("The outputs of the model change from call to call; not checked.")
                return 0.0
            # Random weights can saturate a softmax, so that rounding picks another class.
            if _largest_difference(expected, of_model(_nudged(inputs))) > difference / 2:
                _log.info("The outputs of the model change as much by rounding; not checked.")
                return 0.0
        return difference


def _nudged(inputs: Any) -> Any:
    """Inputs that differ by little more than rounding."""
    return tf.nest.map_structure(
        lambda each: each * (1 + _NUDGE) if each.dtype.is_floating else each, inputs
    )


def _reason(error: Exception) -> str:
    """The line of a message that holds the reason, without the frame that Keras adds."""
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines()
    told = [line.strip() for line in lines if line.strip()]
    return next((line for line in told if "encountered when" not in line), type(error).__name__)


def signature_of(specs: Any) -> list[Any]:
    """Returns the signature of a computation: the inputs of the model, and groups of outputs."""
    return [specs, tf.TensorSpec([None, None, None], tf.int32)]


def _spec_choices(specs: Any, inputs: Any) -> list[Any]:
    """The specs to try in turn: as they are, with the sizes of a batch, also with its length."""

    def with_sizes(first: int) -> Any:
        return tf.nest.map_structure(
            lambda spec, each: tf.TensorSpec(
                [*spec.shape[:first], *each.shape[first:]], spec.dtype, spec.name
            ),
            specs,
            inputs,
        )

    choices = [specs]
    for more in (with_sizes(1), with_sizes(0)):
        if _shapes(more) != _shapes(choices[-1]):
            choices.append(more)
    return choices


def _shapes(specs: Any) -> tuple[Any, ...]:
    return tuple(tuple(spec.shape) for spec in tf.nest.flatten(specs))


def _values_of_an_image(inputs: Any) -> int:
    return sum(math.prod(each.shape[1:]) for each in tf.nest.flatten(inputs))


def _largest_difference(expected: list[Any], got: list[Any]) -> float:
    worst = 0.0
    for one, other in zip(expected, got, strict=True):
        a = np.asarray(one, np.float64)
        b = np.asarray(other, np.float64)[: len(a)]
        if a.shape != b.shape:
            return float("inf")
        if a.size and np.isfinite(a).all():
            scale = max(float(np.abs(a).max()), 1e-6)
            worst = max(worst, float(np.nan_to_num(np.abs(a - b), nan=np.inf).max()) / scale)
    return worst
