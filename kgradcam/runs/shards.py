"""Computes the parts of a planned run, in any number of processes on any number of machines.

A part is computed from the plan alone, and written under a name that the plan determines. So a
part may be computed again at any time, and by several workers at once: all write the same.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image

from kgradcam import progress
from kgradcam.data.dataset import Dataset
from kgradcam.data.examples import NO_DIGEST, NO_OBJECTS, Example
from kgradcam.data.sources import data_folder, image_folder
from kgradcam.errors import UserError, differences
from kgradcam.models.own_layers import import_modules
from kgradcam.progress import Advance, ignore
from kgradcam.runs.dataset_folder import find_folder
from kgradcam.runs.describing import describe_model, determinism, stop_if_strict, versions
from kgradcam.runs.detection import run_explainer
from kgradcam.runs.explaining import explain_batch, load_model
from kgradcam.runs.finished_parts import part_fields, write_part
from kgradcam.runs.plan import Plan, PlannedImage, is_merged
from kgradcam.runs.tables import Image
from kgradcam.runs.unfinished_part import BatchResult, merged
from kgradcam.storage import is_remote, place


class ShardWorker:
    """Computes parts of a plan; it loads the model once.

    Args:
        plan: The plan.
        data_dir: The folder of tensorflow-datasets. Default: that of the plan.
        trusted: Whether the model may execute code of its own.
        imports: Modules that define layers of the model file.
        quiet: Shows no progress on stderr.

    Raises:
        UserError: The model, or the version of a library, is not that of the plan; or the dataset
            is gone.

    Example:
        worker = ShardWorker(read_plan(Path("runs/cats")))
        for number in worker.plan.shard(2):
            worker.run_part(number)
    """

    def __init__(
        self,
        plan: Plan,
        *,
        data_dir: Path | None = None,
        trusted: bool = False,
        imports: Sequence[str] = (),
        quiet: bool = True,
    ) -> None:
        self.plan = plan
        import_modules(imports)
        info = plan.info
        self._configuration = replace(info.configuration, trusted=trusted)
        if self._configuration.max_pixels is not None:
            PIL.Image.MAX_IMAGE_PIXELS = self._configuration.max_pixels
        self._targets = info.model.outputs
        with progress.step(f"loading {self._configuration.model}", quiet):
            classifier = load_model(self._configuration)
            model = describe_model(classifier, info.model.layer, self._targets)
            # Parts of another model or library differ in their last bits at least.
            now = replace(info, model=model, versions=versions())
            if changes := differences(info.to_json(), now.to_json()):
                raise UserError(
                    f"The plan of {plan.folder} was made with something else. "
                    f"{'; '.join(changes)}. Use the same model and versions everywhere, or plan "
                    "anew with --plan --force."
                )
            self._explainer = run_explainer(self._configuration, classifier, plan.images)
        place = find_folder(plan.folder, info.dataset)
        data_dir = data_dir or plan.start.data_dir
        self._folder = image_folder(place, data_dir)
        self._records: Any = None
        if self._folder is None:
            from kgradcam.data.tfds_records import open_records

            self._records = open_records(place, info.dataset.split, data_folder(data_dir))

    def run_part(self, number: int) -> bool:
        """Computes a part, unless it is there.

        Args:
            number: The part, from 0.

        Returns:
            Whether it was computed.

        Raises:
            UserError: An image cannot be read and the run is strict.
            OSError: The part cannot be written. No other part is affected.
        """
        return self.run_parts([number]) == 1

    def run_parts(self, numbers: Iterable[int], advance: Advance = ignore) -> int:
        """Computes several parts; one is drawn and written while the next one is computed.

        Args:
            numbers: The parts, from 0. Those that are there by then are passed over.
            advance: Called with the number of images just done.

        Returns:
            How many were computed.

        Raises:
            UserError, OSError: See `run_part`.
        """
        computed, writing = 0, None
        try:
            with ThreadPoolExecutor(1) as pool:
                for number in numbers:
                    # Another worker may have finished it meanwhile.
                    if self.plan.part_file(number).is_file():
                        continue
                    planned = self.plan.part(number)
                    digests: dict[int, str] = {}
                    result = merged(list(self._explain(planned, digests, advance)))
                    # At most two parts are in memory, and an error of writing ends the loop.
                    if writing:
                        writing.result()
                    writing = pool.submit(self._write, number, planned, digests, result)
                    computed += 1
                if writing:
                    writing.result()
        except FileNotFoundError:
            # A merge removes the hidden folder, perhaps while a second worker repeats a part.
            if not is_merged(self.plan.folder):
                raise
        return computed

    def _explain(
        self,
        planned: Sequence[tuple[Image, PlannedImage]],
        digests: dict[int, str],
        advance: Advance,
    ) -> Iterator[BatchResult]:
        """Yields the results of each batch of a part; adds the digests of its files."""
        dataset = self._dataset([each for _, each in planned], digests)
        configuration = self._configuration
        images = {
            example.index: image
            for example, (image, _) in zip(dataset.examples, planned, strict=True)
        }
        ids = {index: image.id for index, image in images.items()}
        for batch in dataset.batches(
            dataset.examples, configuration.batch_size, configuration.image_size
        ):
            found = explain_batch(self._explainer, batch, self._targets, configuration, ids)
            stop_if_strict(configuration, [(each.file_name, why) for each, why in found.skipped])
            yield BatchResult(
                [images[each.index] for each in found.explained],
                found.heatmaps,
                {ids[each.index]: why for each, why in found.skipped},
            )
            advance(len(batch.examples) + len(batch.damaged))

    def _dataset(self, planned: Sequence[PlannedImage], digests: dict[int, str]) -> Dataset:
        """The images of a part; their annotations are those that the classes come from."""
        first, records = 0, None
        positions = [each.record for each in planned if each.record is not None]
        if positions:
            first = min(positions)
            records = self._records(first, max(positions) + 1)
        names = list(self._targets)
        examples = []
        for i, each in enumerate(planned):
            categories = [int(row[0]) for row in each.objects] + each.labels
            labels = tuple(dict.fromkeys(names[number - 1] for number in categories))
            examples.append(
                Example(
                    i if each.record is None else each.record - first,
                    *each[:3],
                    replace(NO_OBJECTS, labels=labels),
                    self._path(each),
                )
            )
        dataset = self.plan.info.dataset
        return Dataset(dataset.name, dataset.split, examples, records=records, digests=digests)

    def _write(
        self,
        number: int,
        planned: Sequence[tuple[Image, PlannedImage]],
        digests: Mapping[int, str],
        result: BatchResult,
    ) -> None:
        files = (i for i, (_, each) in enumerate(planned) if each.path is not None)
        fields = {
            **part_fields(result.images, result.skipped, result.heatmaps),
            "ids": [image.id for image, _ in planned],
            "files": [digests.get(i, NO_DIGEST) for i in files],
            "layer": self._explainer.layer,
            "precision": self._explainer.precision,
            "determinism": determinism(),
        }
        write_part(
            self.plan.part_file(number),
            self.plan.part_file(number, ".npz"),
            fields,
            result.images,
            result.heatmaps,
            self._configuration,
        )

    def _path(self, planned: PlannedImage) -> Path | None:
        if planned.path is None or self._folder is None:
            return None
        return place(planned.path) if is_remote(planned.path) else self._folder / planned.path


def run_shard(plan: Plan, index: int, *, quiet: bool = True, **options: Any) -> int:
    """Computes the parts of a shard that are not there yet.

    Without any such part the model is not loaded. Any number of processes may do the same shard.

    Args:
        plan: The plan; see `read_plan`.
        index: The shard, from 0.
        quiet: Shows no progress on stderr.
        options: See `ShardWorker`.

    Returns:
        How many parts were computed.

    Raises:
        UserError: There is no such shard, or see `ShardWorker`.
    """
    if not 0 <= index < plan.shards:
        raise UserError(f"The plan of {plan.folder} has {plan.shards} shards. Received: {index}.")
    return run_missing(plan, plan.shard(index), quiet=quiet, **options)


def run_missing(plan: Plan, numbers: Iterable[int], *, quiet: bool = True, **options: Any) -> int:
    """Computes those of some parts that are not there yet; see `run_shard`."""
    done = plan.done()
    missing = [number for number in numbers if number not in done]
    if not missing:
        return 0
    worker = ShardWorker(plan, quiet=quiet, **options)
    images = sum(plan.starts[each + 1] - plan.starts[each] for each in missing)
    with progress.bar("heatmaps", images, "images", quiet) as advance:
        return worker.run_parts(missing, advance)
