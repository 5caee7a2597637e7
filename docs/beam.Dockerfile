# A worker of `kgradcam detect --runner beam`, for Dataflow, Flink and Spark.
# Beam starts it by its own entrypoint. The machine that submits needs the same versions.
FROM apache/beam_python3.12_sdk:2.77.0

# constraints/beam.txt of the same checkout would pin every package.
RUN pip install --no-cache-dir "kgradcam[beam,cloud]"

# Model files are part of the image, at the path that the plan names. Named models are downloaded
# once here, not by each worker.
# COPY model.keras /models/model.keras
RUN python -c "import keras; keras.applications.ResNet50()"

# One process a machine; TensorFlow uses its cores.
ENV TF_CPP_MIN_LOG_LEVEL=3
