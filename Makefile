# The checks by name. Set up first: .github/CONTRIBUTING.md.
PYTHON ?= .venv/bin/python

.PHONY: help test long parity lint format api bench fuzz sanitize

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

test:  ## the default tests, some minutes
	$(PYTHON) -m pytest

long:  ## the long proofs: soak, fuzzing, kills, the real model
	$(PYTHON) -m pytest -m long

parity:  ## against the official tinker package and transformers; needs the extra `parity`
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest -m parity

lint:  ## format, lint and types, without changing a file
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

format:  ## format Python and C++; needs the extra `dev`
	$(PYTHON) -m ruff format .
	$(dir $(PYTHON))pre-commit run --all-files clang-format

api:  ## write tinker_local/API.md from the docstrings
	$(PYTHON) -m tests.api_page

bench:  ## speed against the bare llama.cpp loop, and of the kernels
	$(PYTHON) -m tests.benchmarks.engine
	$(PYTHON) -m tests.benchmarks.kernels

fuzz:  ## broken files of every kind; COUNT=100 says how many of each
	$(PYTHON) -m tests.fuzz.gguf $(if $(COUNT),--count $(COUNT))
	$(PYTHON) -m tests.fuzz.checkpoints $(if $(COUNT),--count $(COUNT))
	$(PYTHON) -m tests.fuzz.archives $(if $(COUNT),--count $(COUNT))
	$(PYTHON) -m tests.fuzz.templates $(if $(COUNT),--count $(COUNT))

sanitize:  ## the kernels' tests under the address and undefined-behaviour sanitizers
	.ci/sanitize
