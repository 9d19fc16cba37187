# All targets use one environment, .venv. The first target that runs creates it.
PYTHON ?= python3
DATA ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ROOMS := keys protocols governance client server
PROTO := protocols/proto
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCKS := $(wildcard locks/*.lock)
LOCKED := $(PIP) install --require-hashes --no-deps --only-binary :all:

# Each process of the tests and of the demo reads the bytecode that the first one kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test coverage test-all test-shard fuzz check style types layers security language check-proto \
	check-pages bench-utility bench-figures bench-rounds bench-soak bench-load bench-dpsgd bench-private-sum proto commands docs check-site lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv with every package at its pinned version, hashes verified

# torch without CUDA if pip finds it; otherwise that of the package index, with what it asks for.
define install-torch
$(LOCKED) -r locks/torch-cpu.lock 2> $(VENV)/torch.log || { \
	grep 'No matching distribution' $(VENV)/torch.log > /dev/null || { cat $(VENV)/torch.log >&2; exit 1; }; \
	echo "pip finds no torch without CUDA; the package index's may be some gigabytes."; \
	$(LOCKED) -r locks/torch.lock && \
	if $(BIN)/python -m pip show torch | grep '^Requires:.*cuda' > /dev/null; then \
		$(LOCKED) -r locks/torch-cuda.lock; fi; }
endef

$(STAMP): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "Pratique needs Python 3.11 to 3.13 with venv: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "Installing into $(VENV), once; this takes a minute or two."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(LOCKED) -r locks/build.lock
	@$(install-torch)
	@$(LOCKED) -r locks/run.lock -r locks/dev.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pip check
	@touch $@

demo: $(STAMP) ## train one private model in four countries; DATA=FOLDER: four hospitals
	@$(BIN)/python -m demo $(if $(DATA),--data '$(DATA)')

# Tests run in as many processes as there are cores: threads beside them wait asleep.
test coverage test-all test-shard: export OMP_NUM_THREADS := 1
test coverage test-all test-shard: export OMP_WAIT_POLICY := PASSIVE
test coverage test-all test-shard: export OPENBLAS_NUM_THREADS := 1

# In CI a skipped test is a failed one.
PYTEST := $(BIN)/python -m pytest -q -n auto --dist worksteal
PATIENT := --timeout 1800
STRICT := $(if $(CI),--no-skips)
COVER := --cov --cov-report=
REPORT = $(BIN)/coverage report --format=total | sed 's/^/Lines and branches covered, per cent: /'
LANDING ?= $(shell git rev-list --count HEAD)

test: $(STAMP) ## run the tests that need nothing but this folder
	@$(PYTEST) $(STRICT) $(if $(COVERAGE),$(COVER))
	@$(if $(COVERAGE),$(REPORT))

coverage: ## run the same tests, and print the share of lines and branches that they reach
	@$(MAKE) --no-print-directory test COVERAGE=1

test-all: $(STAMP) ## run the slow, statistical and fault-injecting tests too; a skipped test fails
	@$(PYTEST) --no-skips $(PATIENT) --hypothesis-profile thorough -m ''

test-shard: $(STAMP) ## run one shard of the slow, statistical and fault-injecting tests; LANDING picks it
	@$(PYTEST) --no-skips $(PATIENT) -m 'slow or statistical or fault' --shard $(LANDING)

SECONDS ?= 120
fuzz: $(STAMP) ## fuzz every parser of bytes from outside, for SECONDS in all (x86_64 only)
	@$(LOCKED) -r tests/fuzz/atheris.lock
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

check: style types layers security language check-proto check-pages ## check style, types, layers, security, language, generated code, pages

style: $(STAMP) ## check rules and format with ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## check types with mypy, strict
	@$(BIN)/mypy

layers: $(STAMP) ## check that imports go down only, with import-linter
	@$(BIN)/lint-imports

security: $(STAMP) ## check for insecure code with bandit
	@$(BIN)/bandit -q -c pyproject.toml -r $(ROOMS) demo

language: $(STAMP) ## check for phrases that are hard to read (tests/support/phrases.yaml)
	@$(BIN)/python -m tests.support.language

# $(call generate,FOLDER): write the generated code of both .proto files below FOLDER
define generate
$(BIN)/python -m grpc_tools.protoc -I. --python_out=$(1) --pyi_out=$(1) $(PROTO)/round.proto
$(BIN)/python -m grpc_tools.protoc -I. --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) \
	$(PROTO)/exchange.proto
endef

proto: $(STAMP) ## generate code from the .proto files
	@$(call generate,.)

check-proto: $(STAMP) ## check that the generated code matches the .proto files
	@rm -rf build/proto && mkdir -p build/proto
	@$(call generate,build/proto)
	@cd build/proto/$(PROTO) && for file in *; do \
		cmp "$$file" "$(CURDIR)/$(PROTO)/$$file" || { echo "run: make proto" >&2; exit 1; }; done

check-pages: $(STAMP) ## check the commands, help texts, links and paths in the pages
	@$(BIN)/python -m pytest -q -p no:cacheprovider tests/integration/test_pages.py

commands: $(STAMP) ## write the programs' help texts into docs/commands.md
	@$(BIN)/python -m tests.support.command_help

bench-private-sum: $(STAMP) ## measure a private sum, beside Flower's SecAgg+
	@$(BIN)/python -m bench.private_sum

bench-rounds: $(STAMP) ## measure a round, beside a plain message of stock Flower
	@$(BIN)/python -m bench.rounds

bench-soak: $(STAMP) ## measure memory and file sizes over 500 rounds
	@$(BIN)/python -m bench.soak

bench-dpsgd: $(STAMP) ## measure a clipped sum and a contribution, beside SGD and Opacus
	@$(BIN)/python -m bench.dpsgd

bench-load: $(STAMP) ## measure honest calls beside a flood of hostile ones, for five minutes
	@$(BIN)/python -m bench.load

bench-figures: $(STAMP) ## measure how often released intervals hold the exact figure
	@$(BIN)/python -m bench.figures

bench-utility: $(STAMP) ## measure accuracy against privacy on three public data sets
	@$(BIN)/python -m bench.utility

docs: $(STAMP) ## build the site of the pages, with the API reference, into build/site
	@$(BIN)/python -m mkdocs build --quiet --strict
	@$(MAKE) --no-print-directory check-site
	@echo "The site is in build/site/index.html"

check-site: $(STAMP) ## check that the built site loads nothing from another host
	@$(BIN)/python -m docs.site.check build/site

# WHEELS: folders with builds of torch that the package index lacks; their hashes are added.
WHEELS ?= $(PIP_FIND_LINKS)

lock: ## pin the newest versions that pyproject.toml allows, with their hashes
	@test -x $(BIN)/uv || $(MAKE) install
	@$(BIN)/python -m tests.support.lock $(WHEELS)

clean: ## remove everything that was built, .venv included
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
