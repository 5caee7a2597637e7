# Each target makes what environment it needs, from nothing but Python 3.11 to 3.13 (PYTHON=... picks one).
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/installed

.PHONY: demo test lint

demo: $(STAMP)  ## real photographs explained, boxed, scored and drawn
	$(VENV)/bin/kgradcam demo --force

test: $(STAMP)  ## the whole test suite
	$(VENV)/bin/python -m pytest -n 2

lint: $(STAMP)  ## style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable '.[dev]'
	touch $@
