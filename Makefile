# make demo | test | bench | lint | docs | gpu-check      (PYTHON=python3.12 make ... for another interpreter)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# The torch to build against: a version with a CPU wheel. On a GPU machine: make TORCH="torch" ...
TORCH ?= torch==2.13.0
BUILD_NEEDS := "setuptools>=77" wheel "pybind11>=2.12" ninja numpy
SOURCES := $(shell find csrc setup.py pyproject.toml -type f)

.PHONY: demo test bench lint format docs gpu-check aot clean

## Generate a picture of digits with the shipped model.
demo: $(VENV)/.installed
	$(BIN)/fastdiff doctor
	$(BIN)/fastdiff sample --model digits -n 100 --seed 0 --out samples.png
	@echo "The picture is at $(CURDIR)/samples.png"

## All tests: first the reference backend alone, then everything with the compiled kernels required.
test: $(VENV)/.installed-dev
	FASTDIFF_EXTENSION=0 $(BIN)/python -m pytest -q -n 2 tests/ops tests/samplers -m "not slow" -k "not triton"
	FASTDIFF_REQUIRE=cpu $(BIN)/python -m pytest -q -n 2

## Every comparison with its peers, as a table; BENCH="--benchmark-json=out.json" for JSON.
bench: $(VENV)/.installed-dev
	$(BIN)/python -m pytest benchmarks/ --benchmark-only -q $(BENCH)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*')

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*')

## Regenerate docs/ops.md from the op table.
docs: $(VENV)/.installed
	$(BIN)/python -m fastdiff.ops.document docs/ops.md

## What the Triton kernels compile to, for sm_80, sm_90 and gfx942; needs no GPU.
aot: $(VENV)/.installed-dev
	TRITON_INTERPRET=0 $(BIN)/python -m fastdiff.kernels.aot

## On a GPU machine: build, tests with every backend required, compute-sanitizer, roofline; DRY_RUN=1 without a GPU.
gpu-check: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.gpu_check $(if $(DRY_RUN),--dry-run --out build/gpu-check)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	$(PIP) install "$(TORCH)" $(BUILD_NEEDS)
	$(PIP) install --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --no-build-isolation -e ".[dev]"
	$(PIP) install --no-deps "k-diffusion>=0.1.1"
	@touch $@

clean:
	rm -rf build dist *.egg-info fastdiff/*.so samples.png
