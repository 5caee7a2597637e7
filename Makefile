# Each target first makes its environment in VENV, from nothing but Python 3.11 to 3.13.
# Another interpreter beside the first: make test-quick PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
STAMP := $(VENV)/installed

.PHONY: help demo results test test-quick test-slow docs bench lint

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(STAMP)  ## heatmaps, boxes, scores and pictures of photographs that need no download
	$(VENV)/bin/kgradcam demo --force

# Options are chosen on one half of the demo's scenes and reported on the other. Each command is
# kept beside what it made.
define RESULTS
kgradcam detect --dataset demo --split train --class cat --model efficientnet-lite0 --out runs/results/train
kgradcam detect --dataset demo --split test --class cat --model efficientnet-lite0 --out runs/results/test
kgradcam tune runs/results/train --metric ap@0.5 --out results/demo/options.json
kgradcam evaluate runs/results/test --box-options results/demo/options.json --iou 0.3:0.7:0.1 --baselines --bootstrap 1000 --out results/demo/chosen
kgradcam evaluate runs/results/test --thresholds 0.02:0.60:0.02 --radii 0,5,10,20,40 --iou 0.3:0.7:0.1 --baselines --out results/demo/grid
kgradcam wsol runs/results/test --box-options results/demo/options.json --markdown > results/demo/wsol.md
kgradcam faithfulness runs/results/test --markdown > results/demo/explanations.md
endef
export RESULTS

results: $(STAMP)  ## what results/ holds, from the demo's scenes
	rm -rf results/demo runs/results && mkdir -p results/demo
	printf '# What `make results` makes\n\n```sh\n%s\n```\n' "$$RESULTS" > results/README.md
	printf '%s\n' "$$RESULTS" | PATH="$(CURDIR)/$(VENV)/bin:$$PATH" sh -ex

test: $(STAMP)  ## all tests except the slow ones
	$(VENV)/bin/python -m pytest -n 2 -m "not slow"

test-quick: $(STAMP)  ## the core of the suite: explainer, boxes, metrics
	$(VENV)/bin/python -m pytest -m "not slow" tests/heatmaps/test_gradcam.py tests/boxes tests/metrics

test-slow: $(STAMP)  ## the slow tests
	$(VENV)/bin/python -m pytest -n 2 -m slow

docs: $(STAMP)  ## the site, with the reference made from docstrings, in build/site
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

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
