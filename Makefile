# `make demo` and `make test` work on a fresh machine: they make .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types benchmark clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/topomoe demo --out runs/demo --overwrite

test: $(VENV)/installed
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	rm -rf build/types && mkdir -p build/types
	cp -rs $(CURDIR)/topomoe build/types/topomoe
	cp -rs $(CURDIR)/topologies $(CURDIR)/envs $(CURDIR)/agents build/types/topomoe/
	$(BIN)/mypy

benchmark: $(VENV)/installed
	$(BIN)/python -m pytest benchmarks --benchmark-only

clean:
	rm -rf $(VENV) build runs
