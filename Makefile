# One command for each thing that people and the CI do. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help env demo test test-slow check coverage bench bench-serve clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

env: $(READY) ## make the environment (the other targets do it when needed)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed; make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY) ## LEA-Net against the plain classifier on generated pictures, with a report
	$(BIN)/leanet demo --out runs/demo --overwrite

test: $(READY) ## all tests but the slow ones, WORKERS files at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: $(READY) ## the slow tests
	$(BIN)/python -m pytest -m slow

check: $(READY) ## style, types, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell src tests benchmarks docs README.md CONTRIBUTING.md CHANGELOG.md

coverage: $(READY) ## tests with branch coverage
	$(BIN)/python -m pytest -m "not slow" --cov --cov-report=term

bench: $(READY) ## speed, as ratios measured side by side
	$(BIN)/python benchmarks/color.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/cavga.py
	$(BIN)/python benchmarks/topk.py
	$(BIN)/python benchmarks/coreset.py
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/guided.py
	$(BIN)/python benchmarks/startup.py

bench-serve: $(READY) ## the server: requests per second, memory, the same answers as predict
	$(BIN)/python benchmarks/serve.py

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .coverage
