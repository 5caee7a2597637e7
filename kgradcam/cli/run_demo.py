"""The whole of kgradcam on pictures that need no download."""

from pathlib import Path

from kgradcam.data.dataset import DEMO
from kgradcam.data.demo_scenes import CLASS_NAME
from kgradcam.errors import UserError
from kgradcam.evaluation.grid import Evaluation, evaluate_run
from kgradcam.metrics.average_precision import find_protocol
from kgradcam.models.classifier import EFFICIENTNET_LITE0
from kgradcam.pictures.drawing import save
from kgradcam.pictures.run_gallery import visualize_run
from kgradcam.runs.detection import Configuration, detect

CONFIGURATION = Configuration(
    dataset=DEMO,
    classes=(CLASS_NAME,),
    model=EFFICIENTNET_LITE0,
)


def run_demo(
    folder: Path, *, data_dir: Path | None = None, force: bool = False, quiet: bool = True
) -> tuple[Evaluation, Path]:
    """Detects the cats of the demo dataset, scores their boxes and draws ten of the pictures.

    Args:
        folder: Where to write: a run in `run/`, and `ten.png`.
        data_dir: Where the demo dataset is kept, and made if it is not there.
        force: Replaces what an earlier demo wrote.
        quiet: Shows no progress on stderr.

    Returns:
        The scores, and the picture's path.

    Raises:
        UserError: The `demo` extra is not installed, or the folder holds a demo already.
    """
    picture = folder / "ten.png"
    if picture.exists() and not force:
        raise UserError(f"{picture} is already there. Choose another --out, or add --force.")
    folder.mkdir(parents=True, exist_ok=True)
    run = detect(CONFIGURATION, folder / "run", data_dir=data_dir, force=force, quiet=quiet)
    evaluation = evaluate_run(run, None, (0.3, 0.4, 0.5), find_protocol("voc2010"), quiet=quiet)
    save(visualize_run(run, data_dir=data_dir), picture)
    return evaluation, picture
