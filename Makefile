# `make demo` and `make test` work on a fresh machine: they make .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types validate benchmark clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/topomoe study --trace small-64x6 --model deepseek-v2-lite --slots 256 \
	    --placements contiguous,eplb,exact --batches 200 --batch-tokens 8192 --resamples 6 \
	    --out runs/demo/trained --overwrite
	$(BIN)/topomoe study --slots 384 --placements contiguous,eplb,exact --batches 200 \
	    --batch-tokens 8192 --resamples 6 --out runs/demo/study --overwrite
	$(BIN)/topomoe network --topology torus --grid 16x8 --demand zipf \
	    --routings dimension-order,o1turn,valiant,ugal,optimal --out runs/demo/network --overwrite
	$(BIN)/topomoe train --agent ppo --scenario default --timesteps 131072 \
	    --out runs/demo/ppo --overwrite
	$(BIN)/topomoe evaluate --agents never-switch,hysteresis,forecast,clairvoyant,runs/demo/ppo \
	    --out runs/demo/agents --overwrite
	@echo "reports: $(CURDIR)/runs/demo/trained/report.html $(CURDIR)/runs/demo/study/report.html"
	@echo "figures: $(CURDIR)/runs/demo/trained/figures $(CURDIR)/runs/demo/study/figures $(CURDIR)/runs/demo/network/figures $(CURDIR)/runs/demo/agents/figures"

test: $(VENV)/installed
	$(BIN)/python -m pytest -q -n auto

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	rm -rf build/types && mkdir -p build/types
	cp -rs $(CURDIR)/topomoe build/types/topomoe
	cp -rs $(CURDIR)/topologies $(CURDIR)/envs $(CURDIR)/agents build/types/topomoe/
	$(BIN)/mypy

# SimGrid takes minutes for the default; `make validate SPEED=torus8x4_zipf` times a small case.
SPEED ?= torus16x8_zipf
validate: $(VENV)/installed
	$(BIN)/python tests/validation/validate.py --speed $(SPEED)

benchmark: $(VENV)/installed
	$(BIN)/python -m pytest benchmarks --benchmark-only

clean:
	rm -rf $(VENV) build runs
