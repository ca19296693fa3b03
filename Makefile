# InstructRec Deploy. `make demo` and `make test` install what they need into .venv by themselves.
#
#   make setup    the environment in .venv, with the command .venv/bin/instructrec
#   make demo     tune, export, serve and ask, in English and in Chinese
#   make test     the tests                    make check   format, lint, types, imports, proto, stubs
#   make bench    measure BUNDLES="a b"
#   make proto    the protobuf stubs           make clean   remove what was built (not .venv)
#
# PYTHON=python3.12   another interpreter (3.11 or newer)
# EXTRAS=gpu,train,dev   ONNX Runtime with CUDA in place of the CPU one (make -B setup to change)
# TORCH_INDEX=URL     an index to look for torch in, beside the package registry: see README, Install

PYTHON ?= $(shell command -v python3.11 || command -v python3)
EXTRAS ?= cpu,train,dev
PYTEST_ARGS ?= -q -n auto --dist loadfile --max-worker-restart 0
BUNDLES ?= build/demo/en/bundle
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
SOURCES := instructrec_deploy training/instructrec_training tests scripts

# Every pip run, those of build environments too, gets exactly the pinned versions.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check proto bench clean

help:
	@sed -n '3,13s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON="$(PYTHON)" EXTRAS="$(EXTRAS)" TORCH_INDEX="$(TORCH_INDEX)" sh scripts/setup.sh $(VENV)
	@touch $@

demo: setup
	@$(BIN)/instructrec demo $(DEMO_ARGS)

test: setup
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/hadolint Dockerfile
	@PYTHON=$(CURDIR)/$(BIN)/python sh scripts/check_proto.sh
	@echo "check: all clean"

proto: setup
	PYTHON=$(CURDIR)/$(BIN)/python sh scripts/make_proto.sh

bench: setup
	mkdir -p benchmarks/results
	$(BIN)/instructrec bench $(BUNDLES) --out benchmarks/results/bench.json $(BENCH_ARGS)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find instructrec_deploy training tests -name __pycache__ -type d -prune -exec rm -rf {} +
