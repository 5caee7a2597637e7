# Each target first makes its environment in VENV, from nothing but Python 3.11 to 3.13.
# Another interpreter beside the first: make test-quick PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
# A file of exact versions, such as constraints/newest.txt for those of the last release.
CONSTRAINTS ?=
EXTRAS ?= dev
TESTS ?= tests
STAMP := $(VENV)/installed

.PHONY: help demo results test test-quick test-slow test-explore test-beam test-oldest docs package bench lint lock

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(STAMP)  ## heatmaps, boxes, scores and pictures of photographs that need no download
	$(VENV)/bin/kgradcam demo --force

# VOC2012=.../VOCdevkit/VOC2012 also rebuilds the runs on photographs; see results/README.md.
results: $(STAMP)  ## what results/ holds, as far as this machine can rebuild it
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" VOC2012="$(VOC2012)" sh results/rebuild.sh

test: $(STAMP)  ## all tests except the slow ones; or make test TESTS=tests/boxes
	$(VENV)/bin/python -m pytest -n 2 -m "not slow" $(TESTS)

test-quick: $(STAMP)  ## the core of the suite: explainer, boxes, metrics
	$(VENV)/bin/python -m pytest -m "not slow" tests/heatmaps/test_gradcam.py tests/boxes tests/metrics

test-slow: $(STAMP)  ## the slow tests
	$(VENV)/bin/python -m pytest -n 2 -m slow $(TESTS)

test-explore:  ## the page of `kgradcam explore`, with Gradio, which needs an older Pillow
	$(MAKE) test-slow VENV=.venv-explore EXTRAS=dev,explore TESTS=tests/pictures/test_explorer_page.py

test-oldest:  ## the same with the oldest supported version of each dependency
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints/oldest.txt

test-beam:  ## Apache Beam, which needs older versions of Pillow and protobuf
	$(MAKE) test VENV=.venv-beam EXTRAS=dev,beam TESTS=tests/runs/test_beam_engine.py

docs: $(STAMP)  ## the site, with the reference made from docstrings, in build/site
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

package: $(STAMP)  ## the wheel, installed in an empty environment, runs the demo
	rm -rf build/wheel build/empty build/demo
	$(VENV)/bin/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/empty
	build/empty/bin/pip install --quiet "$$(ls build/wheel/*.whl)[demo]"
	cd build && empty/bin/kgradcam demo --out demo
	rm -rf build/empty

bench: $(STAMP)  ## what heatmaps, detect, memory, boxes and grids cost, in benchmarks/results/bench.md
	$(VENV)/bin/python benchmarks/throughput.py --quick
	$(VENV)/bin/python benchmarks/end_to_end.py --quick
	$(VENV)/bin/python benchmarks/memory.py --quick
	$(VENV)/bin/python benchmarks/localization.py
	$(VENV)/bin/python benchmarks/grid.py
	$(VENV)/bin/python benchmarks/report.py

lint: $(STAMP)  ## style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

lock: $(STAMP)  ## writes the versions of this environment into constraints/newest.txt
	$(VENV)/bin/pip freeze --exclude-editable > constraints/newest.txt

$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(CONSTRAINTS:%=--constraint %) --editable '.[$(EXTRAS)]'
	touch $@
