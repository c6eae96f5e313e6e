# make demo    install what it needs, train a spoken language model on two cores, leave runs/demo/report.html
# make test    install what the tests need, run all but the slow ones
# make slow    the slow tests
# make beam    what runs on Apache Beam, in an environment of its own (its protobuf and pyarrow are other ones)
# make wheel   build the wheel, install it into an empty folder and run it there
# make lint    ruff and mypy
# make format  let ruff put the files in order
# make docs    write the tables of the README that come from the code
# make lock    rewrite requirements*.txt from pyproject.toml
# make clean   remove caches and build leftovers (runs, data and .venv stay)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
WORKDIR ?= runs/demo
WORKERS ?= 2
ARGS ?=
PY := $(VENV)/bin/python
UV := $(shell command -v uv 2>/dev/null)
# The first Python that the lock was resolved for and that starts; an own choice: make demo PYTHON=/path/to/python3
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c '$(IN_RANGE)' 2>/dev/null && command -v $$p && break; done)

# uv is fast and takes only what is locked; pip is always there.
ifdef UV
CREATE := $(UV) venv --quiet --seed --python '>=3.11,<3.15' $(VENV)
INSTALL := $(UV) pip install --quiet --python $(PY)
else
CREATE := $(PYTHON) -m venv $(VENV)
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check
endif

RUN_READY := $(VENV)/.ready-run
TEST_READY := $(VENV)/.ready-test
LINT_READY := $(VENV)/.ready-lint

# Apache Beam wants older versions of some packages than the rest, so that it has a lock and an environment of its own.
BEAM_VENV ?= .venv-beam
BEAM_READY := $(BEAM_VENV)/.ready
BEAM_TESTS := $(shell sed -nE '/^(pytest|pytest-timeout|hypothesis)==/p' requirements-test.txt)
OTHER_IN_BEAM := protobuf|pyarrow|python-dateutil|pillow|beartype

.PHONY: help demo install test slow beam wheel lint format docs lock clean

help:
	@sed -n 's/^# make /make /p' Makefile

demo: $(RUN_READY)
	$(PY) -m slm_jax demo --workdir $(WORKDIR) $(ARGS)

install: $(RUN_READY)

test: $(TEST_READY)
	$(PY) -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

slow: $(TEST_READY)
	$(PY) -m pytest -q -m slow --timeout 1500 --deselect tests/end_to_end/test_wheel.py $(ARGS) || test $$? -eq 5  # 5: there are none

beam: $(BEAM_READY)
	$(BEAM_VENV)/bin/python -m pytest -q -m "slow or not slow" --timeout 900 \
		tests/pipelines tests/faults/test_shards_kill.py $(ARGS)

$(BEAM_READY): requirements-beam.txt
	test -x $(BEAM_VENV)/bin/python || $(if $(UV),$(UV) venv --quiet --seed $(BEAM_VENV),$(PYTHON) -m venv $(BEAM_VENV))
	$(BEAM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-beam.txt $(BEAM_TESTS)
	$(BEAM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

wheel: $(TEST_READY)
	$(PY) -m pytest -q -m slow --timeout 600 tests/end_to_end/test_wheel.py

lint: $(LINT_READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(LINT_READY)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(RUN_READY)
	$(PY) -m slm_jax systems --into README.md

$(PY):
	@test -n "$(UV)$(PYTHON)" || { echo "found no Python 3.11 to 3.14: make demo PYTHON=/path/to/python3"; exit 1; }
	$(CREATE)

$(RUN_READY): requirements.txt pyproject.toml | $(PY)
	$(INSTALL) -r requirements.txt
	$(INSTALL) --no-deps -e .
	@touch $@

# pip even where uv is: it takes a build of torch for the CPU from a local folder of wheels when one is configured.
$(TEST_READY): requirements-test.txt $(RUN_READY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	-$(PY) -m pip install --quiet --disable-pip-version-check sentencepiece==0.2.3 sphn==0.2.1
	-$(PY) -m pip install --quiet --disable-pip-version-check --no-deps moshi==$(MOSHI)
	@touch $@

$(LINT_READY): requirements-dev.txt $(RUN_READY)
	$(INSTALL) -r requirements-dev.txt
	@touch $@

# Kyutai's own Mimi, without the older torch that it asks for; where it cannot be had, its tests are skipped.
MOSHI := 0.2.13
# The version of torch that the parity tests were run with.
TORCH := 2.13.0

# One version of each package for every Python and system, so that all run what the tests ran.
LOCK = uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--no-annotate --no-header --no-emit-index-url

lock:
	@test -n "$(UV)" || { echo "make lock needs uv: pip install uv"; exit 1; }
	{ echo "# What 'make demo' needs; written by 'make lock'."; $(LOCK); } > requirements.txt.new
	mv requirements.txt.new requirements.txt
	echo torch==$(TORCH) > torch.lock
	{ echo "# What 'make test' needs beyond requirements.txt; written by 'make lock'."; \
	  echo "# Not listed: the accelerator libraries that torch brings on some systems."; echo "-r requirements.txt"; \
	  $(LOCK) -c requirements.txt -c torch.lock --extra test --extra torch --extra eval | grep -vxFf requirements.txt \
	  | grep -vE '^(nvidia|cuda|triton)'; } > requirements-test.txt.new
	mv requirements-test.txt.new requirements-test.txt
	rm torch.lock
	{ echo "# What 'make lint' needs beyond requirements.txt; written by 'make lock'."; echo "-r requirements.txt"; \
	  $(LOCK) -c requirements.txt --extra dev | grep -vxFf requirements.txt; } > requirements-dev.txt.new
	mv requirements-dev.txt.new requirements-dev.txt
	grep -vE '^($(OTHER_IN_BEAM))==' requirements.txt > beam.lock
	{ echo "# What 'make beam' needs, all of it; written by 'make lock'."; $(LOCK) -c beam.lock --extra beam; } \
	  > requirements-beam.txt.new
	mv requirements-beam.txt.new requirements-beam.txt
	rm beam.lock

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
