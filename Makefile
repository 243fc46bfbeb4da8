# qverify: everything a developer runs. `make help` lists the targets.
# .venv is made from nothing and made again when pyproject.toml or constraints.txt change.
# Nothing is written outside this folder: every cache is switched off or moved into .venv.

PYTHON ?= python3
# Where to get torch from, if not from the default index, e.g. https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# More arguments for results/figures.py, e.g. make figures FIGURES_ARGS='--only 1 --samples 500'
FIGURES_ARGS ?=
# More arguments for results/scale.py, e.g. make scale SCALE_ARGS='--only page --samples 500'
SCALE_ARGS ?=
# The Python that the wheel is tested in, and where its torch comes from, e.g. make wheel WHEEL_PYTHON=python3.13 \
# TORCH_INDEX=https://download.pytorch.org/whl/cpu
WHEEL_PYTHON ?= $(PYTHON)
# More arguments for pytest, e.g. make test PYTEST_ARGS='-k bounds -x'
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
WHEEL := .venv-wheel
STAMP := $(VENV)/.installed
CACHE := $(CURDIR)/$(VENV)/cache

# A copy of MNIST in the user's own cache is still found (and only read) although the cache is moved below.
ifeq ($(strip $(QVERIFY_DATA)),)
export QVERIFY_DATA := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/qverify
endif
export XDG_CACHE_HOME := $(CACHE)
export MPLCONFIGDIR := $(CACHE)/matplotlib
export TORCH_HOME := $(CACHE)/torch
export DASK_CONFIG := $(CACHE)/dask
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo models figures scale test slow wheel lint types docs bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 14
	@echo "Variables: PYTHON=python3.12, TORCH_INDEX=https://download.pytorch.org/whl/cpu, PYTEST_ARGS='-k bounds -x'"

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "$(PYTHON) was not found; install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "qverify needs Python 3.10 or newer, and $(PYTHON) is `"$(PYTHON)" -V 2>&1`; name another: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) lacks the venv module; install it (Debian, Ubuntu: apt install python3-venv) and run make again" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## verify the digits network at 6, 8 and 10 bits, print the table and write the page demo-report/report.html
	rm -rf demo-report
	$(BIN)/qverify verify models/digits.onnx --data digits --bits 6 --out demo-report/bits-6
	$(BIN)/qverify verify models/digits.onnx --data digits --bits 8 --out demo-report/bits-8
	$(BIN)/qverify verify models/digits.onnx --data digits --bits 10 --out demo-report/bits-10
	$(BIN)/qverify report demo-report/bits-6 demo-report/bits-8 demo-report/bits-10
	@$(BIN)/qverify report demo-report/bits-6 demo-report/bits-8 demo-report/bits-10 --format html \
	  --title "A network for digits under quantisation" --out demo-report/report.html

models: $(STAMP)  ## train the networks of models/ that are missing, each from its .toml; what was interrupted goes on
	@for config in models/*.toml; do model=$${config%.toml}.onnx; test -e $$model -a ! -e $$model.checkpoint || \
	  $(BIN)/qverify train --config $$config `test ! -e $$model.checkpoint || echo --resume` || exit; done

figures: $(STAMP)  ## the figures of results/, on all test images: hours; what was interrupted goes on
	$(BIN)/python results/figures.py $(FIGURES_ARGS)

scale: $(STAMP)  ## results/scale/: batches on all test images, killed, on Dask, and their page in Chromium
	$(BIN)/python results/scale.py $(SCALE_ARGS)

test: $(STAMP)  ## the tests that belong to every change, on all cores
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

slow: $(STAMP)  ## the tests marked slow, on all cores
	$(BIN)/python -m pytest -n auto -m slow $(PYTEST_ARGS)

# Tests that read sources find the package beside them, so these run where there is none but the installed one.
wheel: $(STAMP)  ## build the wheel, install it into an environment of its own, and run the tests against it
	rm -rf build dist $(WHEEL)
	$(BIN)/python -m pip wheel --no-deps -w dist .
	"$(WHEEL_PYTHON)" -m venv $(WHEEL)
	$(WHEEL)/bin/python -m pip install -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(WHEEL)/bin/python -m pip install -c constraints.txt "`ls dist/*.whl`[dev]"
	mkdir $(WHEEL)/checkout
	cp -r .ci tests models results examples docs README.md LICENSE Makefile pyproject.toml constraints.txt $(WHEEL)/checkout
	cd $(WHEEL)/checkout && ../bin/python -m pytest -n auto $(PYTEST_ARGS)

lint: $(STAMP)  ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy
	$(BIN)/mypy

docs: $(STAMP)  ## the documentation as a site, site/index.html
	@test -x $(BIN)/mkdocs || { \
	  echo "what makes the site needs Python 3.11 or newer; name one: make clean docs PYTHON=python3.12" >&2; exit 1; }
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f .ci/mkdocs.yml

bench: $(STAMP)  ## the benchmarks (the default options of pytest exclude them)
	$(BIN)/python -m pytest -o addopts='-q --strict-markers' tests/benchmarks --benchmark-only $(PYTEST_ARGS)

clean:  ## remove .venv, caches, reports and the site
	rm -rf $(VENV) $(WHEEL) build dist *.egg-info demo-report site .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
