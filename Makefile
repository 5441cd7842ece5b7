# `make` lists what there is. Every target sets up .venv first when it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export NO_ALBUMENTATIONS_UPDATE := 1

# What reproduce-table-N, fit and sweep-local take from the command line.
PROFILE ?= paper
SEEDS ?= 1
DEVICES ?= 1
LAUNCHER ?= local
OPTIONS = --profile $(PROFILE) --seeds $(SEEDS) --devices $(DEVICES) --launcher $(LAUNCHER) \
	$(if $(ROWS),--rows '$(ROWS)') $(if $(WEIGHTS),--weights '$(WEIGHTS)') $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help tables check-data check-report compare test test-fast lint format bench sweep-local fit claims install clean

help:  ## this list
	@echo "Five papers, one suite: DEXTR, IOG, FAIRS, ITIS and EXITS re-made, table by table."
	@echo
	@echo "  make reproduce-table-N      N: a number or an id, e.g. 4 or dextr-4 (make tables)"
	@echo "       PROFILE=paper          published size and schedule (default); quick: hours on one GPU;"
	@echo "                              small: two CPU cores, real data; miniature: drawn data, minutes"
	@echo "       SEEDS=3 ROWS=3,4       repeat what is random; only some rows"
	@echo "       DEVICES=5              processes per run; they share the published batch (5 on PASCAL, 20 on COCO)"
	@echo "       LAUNCHER=slurm         every run a job that waits for those it builds on (environment:"
	@echo "                              JOB_MINUTES=1440 JOB_CPUS=8 JOB_GPUS=devices SBATCH_PARTITION SBATCH_ACCOUNT)"
	@echo "       WEIGHTS=file.pth       official weights in place of training where a row is the released model,"
	@echo "                              or of the rows named by ROWS"
	@echo "       HUB=1                  let timm fetch ImageNet weights that are not in its cache"
	@echo '       ARGS="model.lr=..."    any value of the recipe'
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## /  make \1|/' | \
		awk -F'|' '{printf "  %-28s%s\n", substr($$1, 3), $$2}'
	@echo
	@echo "Data is looked for below DATA_ROOT (make check-data says what and where). Start with:"
	@echo "  make reproduce-table-dextr-4 PROFILE=miniature"

tables: $(INSTALLED)  ## number, id, title and state of every table
	@$(BIN)/python -m experiments.table_files

reproduce-table-%: $(INSTALLED)
	@$(BIN)/python -m experiments.reproduce $* $(OPTIONS)

check-data: $(INSTALLED)  ## which data sets are found, what to fetch for the others
	@$(BIN)/python -m experiments.check_data $(NAMES)

test: $(INSTALLED)  ## the whole test suite
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(TESTS)

test-fast: $(INSTALLED)  ## the tests that take seconds
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(TESTS)

lint: $(INSTALLED)  ## ruff (lint and format) and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(INSTALLED)  ## ruff, mending what it can
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

check-report: $(INSTALLED)  ## REPORT=reports/paper: was a report edited by hand?
	@$(BIN)/python -m experiments.report_check $(or $(REPORT),reports/$(PROFILE))

compare: $(INSTALLED)  ## RUNS="a b" DATA="coco200/val2017 davis345": trained runs click for click, with pictures
	@$(BIN)/python -m experiments.compare --runs $(RUNS) --data $(DATA) $(ARGS)

bench: $(INSTALLED)  ## speed and memory of loader, index, guidance and clicks, as ratios in one run
	@$(BIN)/python -m tests.bench $(ARGS)

sweep-local: $(INSTALLED)  ## NAME=dextr-components: every run of a sweep file, without any account
	@$(BIN)/python -m experiments.sweep_local $(NAME) --profile $(PROFILE) $(ARGS)

claims: $(INSTALLED)  ## PROFILE=small DATASET=... CLAIMS=...: do the papers' claims hold on small runs?
	@$(BIN)/python -m experiments.claims --profile $(if $(filter paper,$(PROFILE)),small,$(PROFILE)) \
		$(if $(DATASET),--dataset $(DATASET)) $(if $(CLAIMS),--claims '$(CLAIMS)') \
		--seeds $(SEEDS) --devices $(DEVICES) --launcher $(LAUNCHER) $(ARGS)

fit: $(INSTALLED)  ## RECIPE=dextr DATASET=...: train one recipe and evaluate it
	@$(BIN)/python -m experiments.fit --config $(or $(RECIPE),dextr) $(if $(DATASET),--dataset $(DATASET)) \
		--profile $(PROFILE) $(ARGS)

install: $(INSTALLED)  ## .venv with the exact versions of constraints.txt

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is not Python 3.11 or newer; name one with PYTHON=python3.11" >&2; exit 1; }
	@echo "setting up $(VENV) (once, about 6 GB and a few minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "error: $(PYTHON) cannot make a virtual environment (Debian: python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:  ## caches and reports (runs and data are kept)
	rm -rf .cache reports .mypy_cache .ruff_cache .pytest_cache .hypothesis
