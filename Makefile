# One environment, .venv, serves every target; the first target that runs makes it.
PYTHON ?= python3
DATA ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ROOMS := keys protocols governance client server
PROTO := protocols/proto
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-all check style types layers security check-proto check-readme \
	bench-utility bench-rounds bench-soak bench-dpsgd bench-private-sum proto readme docs check-site constraints clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with every package at its pinned version

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "Pratique needs Python 3.11 to 3.13 with venv: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "Installing into $(VENV), once; this takes a minute or two."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt pip setuptools hatchling editables
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev,docs]'
	@touch $@

demo: $(STAMP) ## four countries train one private model; DATA=FOLDER for the four hospitals
	@$(BIN)/python -m demo $(if $(DATA),--data '$(DATA)')

test: $(STAMP) ## the tests that need nothing but this folder
	@$(BIN)/python -m pytest -q -n auto

test-all: $(STAMP) ## and the slow, statistical and fault-injecting ones
	@$(BIN)/python -m pytest -q -n auto -m 'not postgres and not browser'

check: style types layers security check-proto check-readme ## style, types, layers, security, generated code, README

style: $(STAMP) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	@$(BIN)/mypy
	@$(BIN)/mypy -p demo
	@$(BIN)/mypy docs/site/check.py

layers: $(STAMP) ## imports go down only
	@$(BIN)/lint-imports

security: $(STAMP) ## bandit
	@$(BIN)/bandit -q -c pyproject.toml -r $(ROOMS) demo

# $(call generate,FOLDER): the generated code of both .proto files, below FOLDER
define generate
$(BIN)/python -m grpc_tools.protoc -I. --python_out=$(1) --pyi_out=$(1) $(PROTO)/round.proto
$(BIN)/python -m grpc_tools.protoc -I. --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) \
	$(PROTO)/exchange.proto
endef

proto: $(STAMP) ## generate code from the .proto files
	@$(call generate,.)

check-proto: $(STAMP) ## is the generated code that of the .proto files?
	@rm -rf build/proto && mkdir -p build/proto
	@$(call generate,build/proto)
	@cd build/proto/$(PROTO) && for file in *; do \
		cmp "$$file" "$(CURDIR)/$(PROTO)/$$file" || { echo "run: make proto" >&2; exit 1; }; done

check-readme: $(STAMP) ## are the README's commands and help texts those of the programs?
	@$(BIN)/python -m pytest -q -p no:cacheprovider tests/integration/test_readme.py

readme: $(STAMP) ## write the programs' help texts into the README
	@$(BIN)/python -m tests.support.help_blocks

bench-private-sum: $(STAMP) ## what a private sum costs, beside Flower's SecAgg+
	@$(BIN)/python -m bench.private_sum

bench-rounds: $(STAMP) ## how long a round takes, beside a plain message of stock Flower
	@$(BIN)/python -m bench.rounds

bench-soak: $(STAMP) ## 500 rounds: does memory stay flat, are file sizes bounded?
	@$(BIN)/python -m bench.soak

bench-dpsgd: $(STAMP) ## a clipped sum and a whole contribution, beside a step of SGD and Opacus
	@$(BIN)/python -m bench.dpsgd

bench-utility: $(STAMP) ## accuracy against privacy on the four hospitals' records
	@$(BIN)/python -m bench.utility

docs: $(STAMP) ## build the site of the pages, with the API reference, into build/site
	@$(BIN)/python -m mkdocs build --quiet --strict
	@$(MAKE) --no-print-directory check-site
	@echo "The site is in build/site/index.html"

check-site: $(STAMP) ## does the built site load nothing from another host?
	@$(BIN)/python -m docs.site.check build/site

constraints: ## pin the newest versions that pyproject.toml allows
	@rm -rf build/fresh && mkdir -p build && $(PYTHON) -m venv build/fresh
	@build/fresh/bin/pip install -q -U pip setuptools hatchling editables 'mpmath<1.4'
	@build/fresh/bin/pip install -q --no-build-isolation -e '.[dev,docs]' 'mpmath<1.4'
	@{ sed '/^[^#]/d' constraints.txt; build/fresh/bin/pip freeze --all --exclude-editable; } \
		> build/constraints.txt && mv build/constraints.txt constraints.txt && rm -rf build/fresh

clean: ## remove what was built, .venv included
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
