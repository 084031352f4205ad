# `make` lists what there is; `make run` and `make test` do all their own set-up.
PYTHON ?= python3
# A CPU-only torch saves about 4 GB: set TORCH_INDEX to the address of an index that has such wheels.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV = $(shell command -v uv 2>/dev/null || echo $(VENV)-uv/bin/uv)
# Compiled once, here: a scorer or trainer that is started again is back in half the time.
export UV_COMPILE_BYTECODE := 1
GPU_PACKAGES := torch|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*

.DEFAULT_GOAL := help
.PHONY: help setup run test test-long test-faults check fmt bench soak lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## make the environment in .venv

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else "Rocket needs Python 3.11, 3.12 or 3.13, this is %d.%d; set PYTHON=python3.11" % v[:2])'
	@command -v uv >/dev/null 2>&1 || test -x $(VENV)-uv/bin/uv || { $(PYTHON) -m venv $(VENV)-uv && $(VENV)-uv/bin/pip install --quiet uv; }
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
ifeq ($(TORCH_INDEX),)
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
else
	awk '/^[a-zA-Z]/ {keep = !($$0 ~ /^($(GPU_PACKAGES))==/)} keep' requirements.lock > $(VENV)/no-torch.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r $(VENV)/no-torch.lock
	$(UV) pip install --quiet --python $(BIN)/python --index-url $(TORCH_INDEX) \
	  "torch==$$(sed -nE 's/^torch==([^ ;\\]+).*/\1/p' requirements.lock | head -n 1)"
endif
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q contracts deploy flows model nodes
	@touch $@

run: $(READY) ## the main job: simulate, ingest, co-train, publish, score, report
	$(BIN)/rocket demo --out runs/demo

# Files of tests that run side by side, each with servers of its own.
JOBS ?= 2

test: check ## everything that CI runs
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile --durations 15
	$(BIN)/rocket bench --quick join

test-long: check ## the long forms too: more kills, more random batches
	$(BIN)/python -m pytest

test-faults: $(READY) ## kill, stop and starve everything under load, in the long form, and prove that the checkers see bugs
	$(BIN)/python -m pytest tests/faults -m "slow or not slow"

check: $(READY) ## lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(READY) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## measure every stage against its peers
	$(BIN)/rocket bench all

MINUTES ?= 15
soak: $(READY) ## the live loop under steady traffic for MINUTES=15: does anything grow?
	$(BIN)/python -m deploy.soak --minutes $(MINUTES) --out runs/soak

lock: ## resolve requirements.lock again
	$(UV) pip compile --quiet --universal --python-version 3.11 --all-extras --group dev --generate-hashes \
	  --no-emit-package rocket-ctr --no-header --no-annotate pyproject.toml -o requirements.lock

clean: ## remove the environment and the runs
	rm -rf $(VENV) $(VENV)-uv runs
