# Two commands do all the set-up on a fresh machine with Python 3.11+ (Debian: apt install
# python3-venv make):
#
#   make demo   learns a product from real photos, inspects others, and makes a page of it
#   make test   passes the tests

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LEAN := $(VENV)/.installed-lean
INSTALLED := $(VENV)/.installed-dev

.PHONY: demo test lint docs schema install clean

# The lean package alone, no PyTorch: what a station installs.
demo: $(LEAN)
	$(BIN)/zeroflaw demo

# Two processes share the tests; those that measure or take all the memory come after, alone, in CI.
test: $(INSTALLED) lint docs
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long and not full_size and not every_python"
ifeq ($(CI),true)
	$(BIN)/python -m pytest -m "long or full_size or every_python"
endif

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The manual as a site, build/site/index.html; a broken link is an error.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# Writes docs/*.schema.json anew; a test fails if one is out of date.
schema: $(INSTALLED)
	$(BIN)/python -c 'import json; from zeroflaw.records.record import inspection_json_schema as s; \
		print(json.dumps(s(), indent=2))' > docs/inspection.schema.json
	$(BIN)/python -c 'import json; from zeroflaw_benchmarks.bench.report.report import bench_json_schema as s; \
		print(json.dumps(s(), indent=2))' > docs/bench.schema.json

install: $(INSTALLED)

$(LEAN): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(INSTALLED): $(LEAN)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) out build dist
