"""The precision of a machine: by name, by itself, and refused."""

import pytest
from networks import normalized_network

from kgradcam.errors import UserError
from kgradcam.heatmaps import precision as precisions
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.precision import choose_precision


def test_precision_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="precision='bfloat61' is none of .* 'bfloat16'"):
        GradCAM(normalized_network()).freeze(precision="bfloat61")
    monkeypatch.setattr(precisions, "_cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(precisions, "_gpus", list)
    assert choose_precision("auto") == "float32"
    with pytest.raises(UserError, match="'bfloat16' needs a CPU with AVX512-BF16"):
        choose_precision("bfloat16")
    monkeypatch.setattr(precisions, "_cpu_has_bfloat16", lambda: True)
    assert choose_precision("auto") == "bfloat16"
