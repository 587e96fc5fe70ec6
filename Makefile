# Everything starts from a fresh checkout: Python 3.11+, pip and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export PIP_CONSTRAINT = $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Tests run side by side: threads of one would only wait for the others.
test test-full soak: export OPENBLAS_NUM_THREADS = 1

.PHONY: bench bench-quick demo docs fuzz models release-files soak test test-full test-foundation lint clean

demo: $(VENV)/base
	$(BIN)/aftermap demo -o aftermap-demo

test: $(VENV)/dev lint
	$(BIN)/python -m pytest -n auto -m "not full"

test-full: $(VENV)/dev lint test-foundation
	$(BIN)/python -m pytest -n auto

# An hour of mapping to which things happen: docs/faults.md. MINUTES=5 for less.
soak: $(VENV)/dev
	$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),60)

# CPU minutes for each reader; atheris (libFuzzer) is on Linux alone, and without it a slower guide takes its place.
fuzz: $(VENV)/dev
	-$(BIN)/pip install --quiet atheris
	$(BIN)/python -m benchmarks.fuzz --minutes $(or $(MINUTES),10)

# build/release: what a release is made of and from, with hashes (benchmarks/release.py).
release-files: $(VENV)/dev
	$(BIN)/python -m benchmarks.release build/release

# TerraTorch and TorchGeo bring 1.5 GB and versions of their own: an environment of their own.
FOUNDATION = build/foundation
test-foundation: $(FOUNDATION)/ready
	$(FOUNDATION)/bin/python -m pytest tests/test_foundation.py

# Simulates, trains and bundles what comes with the package: hours on one core. landslide-rgb needs ../shared/data.
SIM = build/simulated
models: $(VENV)/dev
	$(BIN)/aftermap simulate flood --vary 0-299 -o $(SIM)/flood-s1
	$(BIN)/aftermap simulate fracture --vary 0-299 -o $(SIM)/fracture-grey
	$(BIN)/aftermap simulate building --vary 0-89 -o $(SIM)/building-rgb
	for hazard in flood fracture building; do $(BIN)/aftermap simulate $$hazard --vary 1000-1039 -o $(SIM)/known/$$hazard || exit 1; done
	for name in flood-s1 fracture-grey building-rgb; do \
	  $(BIN)/aftermap run $$name --on $(SIM)/$$name -o build/runs/$$name && \
	  $(BIN)/python -m benchmarks.bundle $$name --from build/runs/$$name/*/model --unseen $(SIM)/$$name && \
	  $(BIN)/python -m benchmarks.bundle $$name --known $(SIM)/known/$${name%%-*} || exit 1; \
	done
	$(BIN)/aftermap run landslide-rgb --on ../shared/data/landslide_l4s_rgb -o build/runs/landslide-rgb
	$(BIN)/python -m benchmarks.bundle landslide-rgb --from build/runs/landslide-rgb/landslide-rgb-*/model
	$(BIN)/python -m benchmarks.bundle landslide-rgb --known ../shared/data/landslide_l4s_rgb

docs: $(VENV)/docs
	$(BIN)/python -m mkdocs build --quiet --strict --clean
	! grep -rnE '<(script|img|link|iframe)[^>]+(src|href)="?(https?:)?//' site --include=*.html

# NO_MKDOCS_2_WARNING keeps the theme from advertising in every build.
docs: export NO_MKDOCS_2_WARNING = 1

# Beside peers in an environment of their own: `make build/foundation/ready` first, or they are left out.
bench: $(VENV)/dev
	$(BIN)/python -m benchmarks.bench --folder build/bench

bench-quick: $(VENV)/dev
	$(BIN)/python -m benchmarks.bench --folder build/bench --quick

lint: $(VENV)/dev
	$(BIN)/ruff check aftermap tests benchmarks docs
	$(BIN)/ruff format --check aftermap tests benchmarks docs
	$(BIN)/mypy

clean:
	rm -rf $(VENV) aftermap-demo build site *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/base: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/base

$(FOUNDATION)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(FOUNDATION)
	$(FOUNDATION)/bin/pip install --quiet torch==2.13.0 --editable ".[dev,foundation]"
	touch $@

$(VENV)/docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[docs]"
	touch $@
