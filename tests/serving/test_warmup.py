"""The warm-up requests of an export are messages of TensorFlow Serving, and run."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from kgradcam import GradCAM, export_model


def prediction_log() -> type:
    """`tensorflow.serving.PredictionLog`, as its .proto files define the fields of requests."""
    file = descriptor_pb2.FileDescriptorProto(name="log.proto", package="log", syntax="proto3")
    file.dependency.append("tensorflow/core/framework/tensor.proto")
    field = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *given: tuple[str, int, str]) -> descriptor_pb2.DescriptorProto:
        made = file.message_type.add(name=name)
        for key, number, kind in given:
            each = made.field.add(name=key, number=number, label=field.LABEL_OPTIONAL)
            each.type = field.TYPE_MESSAGE if kind else field.TYPE_STRING
            if kind:
                each.type_name = kind
        return made

    message("ModelSpec", ("name", 1, ""), ("signature_name", 3, ""))
    request = message("PredictRequest", ("model_spec", 1, ".log.ModelSpec"))
    entry = request.nested_type.add(name="InputsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=field.TYPE_STRING)
    tensor = ".tensorflow.TensorProto"
    entry.field.add(name="value", number=2, label=1, type=field.TYPE_MESSAGE, type_name=tensor)
    kind = ".log.PredictRequest.InputsEntry"
    request.field.add(name="inputs", number=2, label=3, type=field.TYPE_MESSAGE, type_name=kind)
    message("PredictLog", ("request", 1, ".log.PredictRequest"))
    message("PredictionLog", ("predict_log", 6, ".log.PredictLog"))
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("log.PredictionLog"))


def test_warm_up_requests_run(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3)])
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(3, activation="softmax"))
    export_model(GradCAM(model), tmp_path / "1")
    path = str(tmp_path / "1" / "assets.extra" / "tf_serving_warmup_requests")
    kind, ran = prediction_log(), []
    loaded = tf.saved_model.load(tmp_path / "1").signatures
    for record in tf.data.TFRecordDataset(path):
        request = kind.FromString(record.numpy()).predict_log.request
        name = request.model_spec.signature_name
        found = loaded[name](
            **{k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        )
        assert np.isfinite(found["probabilities"]).all()
        ran.append(name)
    assert ran == ["explain", "explain_class", "predict", "explain_bytes"]
