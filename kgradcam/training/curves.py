"""Learning curves: a figure of loss and validation mAP."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_history(history: Sequence[dict[str, Any]], title: str) -> "Figure":
    """Plots loss and validation mAP over the epochs.

    A dashed line separates the stages and a dot marks the best epoch.

    Args:
        history: The epochs, each with `epoch`, `stage`, `loss` and `map`.
        title: Title of the figure.

    Returns:
        A Matplotlib figure with two panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    # A class or file name may contain "$", which Matplotlib would parse as a formula.
    figure.suptitle(title, fontsize=10, parse_math=False)
    panels: Any = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axes, key, label, scale in (
        (panels[0], "loss", "training loss", 1),
        (panels[1], "map", "validation mAP, percent", 100),
    ):
        values = [scale * row[key] for row in history]
        axes.plot(epochs, values, color="#1f6f8b", marker=".", linewidth=1.4)
        for before, row in pairwise(history):
            if before["stage"] != row["stage"]:
                axes.axvline(row["epoch"] - 0.5, color="0.6", linestyle="--", linewidth=1)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.margins(y=0.12)
    panels[0].set_ylim(bottom=0)
    best = max(history, key=lambda row: row["map"])
    panels[1].plot(best["epoch"], 100 * best["map"], "o", color="#d6336c", markersize=6)
    panels[1].set_title(f"best {100 * best['map']:.1f} after epoch {best['epoch']}", fontsize=9)
    return figure
