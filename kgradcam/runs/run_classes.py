"""The classes of a run: those annotated in its dataset, those of a mapping, or the model's own."""

from collections import Counter
from collections.abc import Mapping, Sequence

from kgradcam.data.dataset import Dataset
from kgradcam.errors import UserError, did_you_mean
from kgradcam.models.class_targets import ALL
from kgradcam.models.classifier import Classifier
from kgradcam.runs.configuration import Configuration


def run_classes(
    configuration: Configuration, dataset: Dataset, classifier: Classifier
) -> list[str]:
    """Returns the class options of a run, without `"all"` and with the targets of a mapping.

    `"all"` is the classes that the split has, or those of the mapping among them. Without any
    annotation it is the classes of the mapping, or every output of the model.

    Args:
        configuration: The options.
        dataset: The split.
        classifier: The model.

    Raises:
        UserError: A mapping has no class of the split.
    """
    mapping = configuration.class_map
    if dataset.annotated:
        present: frozenset[str] = frozenset().union(
            *(each.objects.classes for each in dataset.examples)
        )
        everything = [name for name in dataset.class_names if name in present]
        if mapping:
            everything = _mapped(everything, mapping, dataset)
    else:
        everything = list(mapping) or _own_classes(classifier)
    names = [
        name for each in configuration.classes for name in (everything if each == ALL else [each])
    ]
    return [f"{name}={mapping[name]}" if name in mapping else name for name in names]


def _mapped(present: Sequence[str], mapping: Mapping[str, str], dataset: Dataset) -> list[str]:
    found = [name for name in present if name in mapping]
    if not found:
        pairs = [f"{name!r}.{did_you_mean(name, mapping)}" for name in present]
        raise UserError(
            f"No class of {dataset.name} is in the mapping of classes. It has {' '.join(pairs)}"
        )
    return found


def _own_classes(classifier: Classifier) -> list[str]:
    """Every output of a model as `NAME=INDEX`; names that several outputs share get the index."""
    count = classifier.model.output_shape[-1]
    names = classifier.class_names or tuple(map(str, range(count)))
    shared = {name for name, times in Counter(names).items() if times > 1 or "=" in name}
    return [f"{f'output {i}' if name in shared else name}={i}" for i, name in enumerate(names)]
