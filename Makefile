PYTHON ?= python3
VENV ?= .venv
DATASETS ?= ../shared/datasets
BIN := $(VENV)/bin

# Each stamp is as new as the requirements that it was installed from: nothing is installed twice.
RUNTIME := $(VENV)/.runtime-installed
TRAIN := $(VENV)/.train-installed
DEV := $(VENV)/.dev-installed
BENCH := $(VENV)/.bench-installed
SUPPLY := $(VENV)/.supply-installed
LOCK ?= requirements.lock
SAMPLE_COLUMNS := --label category --split-column ""
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo train test check format lock audit bench bench-quality bench-losses bench-serving bench-index chaos clean

help: ## Show this list
	@echo "Lookalike, a visual search backend. make TARGET, where TARGET is one of:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=python3.12 (any from 3.11), for demo also ONCE=1, CATALOG=path/to/products.csv, PORT=8000,"
	@echo "for chaos QUICK=1 (two minutes), ONLY=\"full-redis ...\", SOAK=30 (minutes),"
	@echo "for bench-serving QUICK=1 (a few minutes, for trying), WEIGHTS_RESNET50=FILE, for bench-index N=1000000"

demo: $(RUNTIME) ## Start everything, import a catalogue, search with a photo; runs until Ctrl-C (ONCE=1: ends then)
	@$(BIN)/python -m demo

train: $(TRAIN) ## Train an encoder on the sample catalogue and judge it; two minutes (docs/training.md: your own)
	rm -rf var/training/sample-run
	$(BIN)/python -m training.sample_catalogue --out var/training/sample
	$(BIN)/python -m training.train --data var/training/sample --out var/training/sample-run $(SAMPLE_COLUMNS) \
		--attribute colour=0.5 --loss cross-entropy --loss multi-similarity=0.5 \
		--views 2 --first-stage 6 --classes 10 --epochs 8 --judge-every 2 --average 0.9
	$(BIN)/python -m training.export var/training/sample-run
	$(BIN)/python -m training.evaluate var/training/sample-run/encoder --against tf_efficientnet_lite0 \
		--data var/training/sample $(SAMPLE_COLUMNS) --attribute colour --out var/training/sample-report

test: $(DEV) ## Run the unit and integration tests but the slow ones, several at a time (check: all, end to end too)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --ignore tests/e2e -m "not slow"

check: $(DEV) ## What CI runs: format, lint, types, import contracts, all tests, one after the other
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

format: $(DEV) ## Format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(SUPPLY) ## Lock requirements.txt with hashes, for deploys; changes what it must (UPGRADE=1: takes the newest of all)
	$(BIN)/uv pip compile requirements.txt --quiet --universal --python-version 3.11 --only-binary :all: \
		--generate-hashes --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) --output-file $(LOCK)

audit: $(SUPPLY) ## Look for unsafe code (bandit), and for known holes in what is locked (pip-audit; needs network)
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml client demo shared training web worker
	@$(BIN)/pip-audit --requirement $(LOCK) --require-hashes --disable-pip --strict --progress-spinner off || { \
		echo "pip-audit found holes, or could not ask the database of advisories: the lines above say which."; \
		echo "If it could not ask, nothing is known about the dependencies. bandit found nothing in the code."; exit 1; } >&2

bench: $(RUNTIME) ## Measure on DATASETS=../shared/datasets and write the figures to docs/results
	$(BIN)/python -m benchmarks.encoder_precision --data $(DATASETS)/fashion
	$(BIN)/python -m benchmarks.exact_search --catalog $(DATASETS)/fashion/products.csv

bench-quality: $(TRAIN) ## Judge ENCODER=<folder> on DATASETS=../shared/datasets through the engine that serves, in int8 (5 minutes)
	@test -n "$(ENCODER)" || { echo "Name an encoder: make bench-quality ENCODER=var/training/fashion/encoder"; exit 1; } >&2
	@$(BIN)/python -m benchmarks.quality --encoder $(ENCODER) --data $(DATASETS)/fashion

bench-losses: $(TRAIN) ## Train with each loss at one budget; writes docs/results/losses.md (half an hour)
	$(BIN)/python -m benchmarks.losses --data $(DATASETS)/fashion

bench-serving: $(BENCH) ## Compare serving with LitServe, Flask and Celery; writes docs/results/serving.md (an hour)
	$(BIN)/python -m benchmarks.serving --datasets $(DATASETS) $(if $(QUICK),--quick,--profile) $(if $(WEIGHTS_RESNET50),--weights-resnet50 $(WEIGHTS_RESNET50))

bench-index: $(BENCH) ## Compare kinds of index with usearch and hnswlib; writes docs/results/index.md (20 minutes, once 10 more to embed photos; N=1000000: half an hour; N=10000000: continued from one and two million)
ifeq ($(N),10000000)
	$(BIN)/python -m benchmarks.index.ten_million --datasets $(DATASETS)
else
	$(BIN)/python -m benchmarks.index --datasets $(DATASETS) $(if $(N),--rows $(N)) $(if $(filter 1000000,$(N)),--recall-target 0.95 --bytes-per-vector 200)
endif

chaos: $(DEV) ## Break a running Lookalike in every way and count what is lost; writes docs/results/chaos.md (a quarter of an hour)
	$(BIN)/python -m chaos $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(SOAK),--soak $(SOAK))

clean: ## Remove caches and everything that the demo left in var/ (the environment stays: rm -r .venv)
	rm -rf var .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Lookalike needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one, for example: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; } >&2
	@echo "Creating the environment in $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)

$(RUNTIME): requirements.txt | $(BIN)/python
	@echo "Installing requirements.txt: once, about 6 GB on disk (PyTorch), usually 3 to 10 minutes"
	@$(PIP_INSTALL) --requirement requirements.txt
	@touch $@

$(TRAIN): requirements-train.txt $(RUNTIME)
	@echo "Installing requirements-train.txt: once, usually under a minute"
	@$(PIP_INSTALL) --requirement requirements-train.txt
	@touch $@

$(DEV): requirements-dev.txt requirements-train.txt requirements-milvus.txt requirements-traces.txt $(RUNTIME)
	@echo "Installing requirements-dev.txt: once, usually under a minute"
	@$(PIP_INSTALL) --requirement requirements-dev.txt
	@touch $@

$(BENCH): requirements-bench.txt $(RUNTIME)
	@echo "Installing requirements-bench.txt: once, usually under a minute"
	@$(PIP_INSTALL) --requirement requirements-bench.txt
	@touch $@

$(SUPPLY): requirements-supply.txt | $(BIN)/python
	@echo "Installing requirements-supply.txt: once, usually under a minute"
	@$(PIP_INSTALL) --requirement requirements-supply.txt
	@touch $@
