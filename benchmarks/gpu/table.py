"""The whole table of a GPU: heatmaps beside the forward pass, torchcam and pytorch-grad-cam.

    python benchmarks/gpu/export.py FOLDER      # where TensorFlow is
    pip install -r benchmarks/gpu/requirements.txt
    python benchmarks/gpu/table.py FOLDER       # where the GPU is

Prints one table in Markdown: each batch and precision, ours by XLA, the others by PyTorch, eager
and compiled. JAX and PyTorch run one after the other, each in a process of its own, so that neither
holds the other's memory.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def lines_of(script: str, *arguments: str) -> list[dict[str, Any]]:
    """Runs a script beside this one, and reads its JSON lines."""
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, str(HERE / script), *arguments]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if finished.returncode:
        print(f"{script} ended with {finished.returncode}; its rows are missing.", file=sys.stderr)
    return [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]


def table(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[str]:
    """The lines of the table; each ratio is to the forward pass of XLA of the same precision."""
    rows = []
    for row in ours:
        name, policy, _ = row["name"].rsplit("-", 2)
        rows.append({**row, "name": f"XLA, {name}", "precision": policy.removeprefix("mixed_")})
    rows = [row for row in rows if row["ms"] is not None] + theirs
    rows.sort(key=lambda row: (row["batch"], row["precision"]))  # stable
    bases = {
        (row["batch"], row["precision"]): row["ms"] for row in rows if row["name"] == "XLA, forward"
    }
    found = [
        "| | batch | ms | images/s | of the forward pass |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        title = f"| {row['name']}, {row['precision']} | {row['batch']} |"
        if "error" in row:
            found.append(f"{title} {row['error']} | | |")
            continue
        base = bases.get((row["batch"], row["precision"]))
        ratio = f"{row['ms'] / base:.3f}" if base else "-"
        rate = 1000 * row["batch"] / row["ms"]
        found.append(f"{title} {row['ms']:.2f} | {rate:.0f} | {ratio} |")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what export.py wrote")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    described = [json.loads(path.read_text())[0][0] for path in options.folder.glob("*.json")]
    batches = sorted({shape[0] for shape in described} - {4})
    rounds = ["--rounds", str(options.rounds)]
    first, *ours = lines_of("run_xla.py", str(options.folder), *rounds)
    size = ["--size", str(described[0][1])]
    second, *theirs = lines_of("run_torch.py", "--batches", *map(str, batches), *size, *rounds)
    print(f"XLA by JAX {first['jax']} on {first['device']}; ", end="")
    print(f"PyTorch {second['torch']} on {second['device']}. Medians of {options.rounds} rounds.\n")
    print("\n".join(table(ours, theirs)))
    print(
        "\nLargest difference from TensorFlow's result on a CPU, relative to the highest value:\n"
    )
    for row in ours:
        if "difference" in row:
            print(f"- {row['name']}: {row['difference']:.1e}")


if __name__ == "__main__":
    main()
