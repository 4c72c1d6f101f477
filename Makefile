# Needs Python 3.11+ with venv, git and make; everything else is installed into .venv, once.
# `make PYTHON=/path/to/python3 …` takes another Python; PIP_* (mirrors, proxies) is honoured.

.DEFAULT_GOAL := help
.PHONY: help demo test check bench up down events requirements clean venv-demo venv-dev
.NOTPARALLEL:

# A user's own modules or virtual environment are none of ours; nor is a Python that drops asserts, or that keeps
# no bytecode: everything here is many short processes, and each would compile what it imports.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTHONSTARTUP PYTHONOPTIMIZE PYTHONDONTWRITEBYTECODE
export PYTHON

RUN := .venv/bin/python
# One pytest process per core of a small machine: some tests hold others' waits to their promise, and a crowd breaks it.
WORKERS ?= 2
ONLY ?=
ARGS ?=

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: venv-demo  ## the whole path on this machine: a story, its trail, the audit
	@$(RUN) -m cli demo $(ARGS)

up: venv-demo  ## start everything and leave it running
	@$(RUN) -m cli up $(ARGS)

down:  ## stop what `make up` started
	@if [ -x $(RUN) ]; then $(RUN) -m cli down $(ARGS); fi

test: venv-dev  ## all tests, on servers of their own (ARGS=tests/shared for some)
	@$(RUN) -m pytest -q -n $(WORKERS) $(ARGS)

check: venv-dev  ## lint, format, types, import rules, SQL of the migrations, docker-compose.yml
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(RUN) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()' --no-logo
	@$(RUN) -m migrations.lint
	@$(RUN) -m check_jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

bench: venv-dev  ## measure, each beside its bare baseline (ONLY="fold consume" for some)
	@$(RUN) -m bench $(ONLY) $(ARGS)

events: venv-dev  ## write the contracts' JSON Schemas and AsyncAPI page into docs/events
	@$(RUN) -m cli.events $(ARGS)

requirements: venv-dev  ## pin the packages of pyproject.toml anew (UPGRADE=1: newer versions)
	@UPGRADE=$(UPGRADE) requirements/compile.sh $(RUN)

clean:  ## stop what runs; remove it, its data and what was installed
	@if [ -x $(RUN) ]; then $(RUN) -m cli down --remove-data; fi
	rm -rf .venv .venv.lock .farebox .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv-demo venv-dev: venv-%:
	@python=$$(requirements/find-python.sh) && "$$python" requirements/install.py $*
