# Each target makes what environment it needs, from nothing but Python 3.11 to 3.13 (PYTHON=... picks one).
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/installed

.PHONY: demo test lint results bench

demo: $(STAMP)  ## real photographs explained, boxed, scored and drawn
	$(VENV)/bin/kgradcam demo --force

# Options are chosen on one half of the demo's scenes and reported on the other. Each command is
# kept beside what it made.
define RESULTS
kgradcam detect --dataset demo --split train --class cat --model efficientnet-lite0 --out runs/results/train
kgradcam detect --dataset demo --split test --class cat --model efficientnet-lite0 --out runs/results/test
kgradcam tune runs/results/train --metric ap@0.5 --out results/demo/options.json
kgradcam evaluate runs/results/test --box-options results/demo/options.json --iou 0.3:0.7:0.1 --baselines --bootstrap 1000 --out results/demo/chosen
kgradcam evaluate runs/results/test --thresholds 0.02:0.60:0.02 --radii 0,5,10,20,40 --iou 0.3:0.7:0.1 --baselines --out results/demo/grid
kgradcam evaluate runs/results/test --box-options results/demo/options.json --protocol wsol --markdown > results/demo/wsol.md
kgradcam evaluate runs/results/test --explanation-metrics --markdown > results/demo/explanations.md
endef
export RESULTS

results: $(STAMP)  ## what results/ holds, from the demo's scenes
	rm -rf results/demo runs/results && mkdir -p results/demo
	printf '# What `make results` makes\n\n```sh\n%s\n```\n' "$$RESULTS" > results/README.md
	printf '%s\n' "$$RESULTS" | PATH="$(CURDIR)/$(VENV)/bin:$$PATH" sh -ex

test: $(STAMP)  ## the whole test suite
	$(VENV)/bin/python -m pytest -n 2

bench: $(STAMP)  ## what heatmaps, detect, memory, boxes and grids cost
	$(VENV)/bin/python benchmarks/throughput.py --quick
	$(VENV)/bin/python benchmarks/end_to_end.py --quick
	$(VENV)/bin/python benchmarks/memory.py --quick
	$(VENV)/bin/python benchmarks/localization.py
	$(VENV)/bin/python benchmarks/grid.py

lint: $(STAMP)  ## style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable '.[dev]'
	touch $@
