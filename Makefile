# Every target makes .venv on first use, from the hash-pinned locks in requirements/. PYTHON=python3.12 picks the interpreter.
SHELL := bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PYTHON

bin := .venv/bin
# Tests wait for servers more than they compute.
WORKERS ?= 4
checked := benchmarks examples infra/dev tests/house conftest.py

.PHONY: help demo demo-cloud test lint bench docs lock clean runtime dev node types

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: runtime ## Summarize and classify the README of every installed package; no account, no key
	@$(bin)/python examples/demo.py $(ARGS)

demo-cloud: dev ## The same at Bedrock, OpenAI and Azure OpenAI, emulated here; the bill held against the ledger
	@$(bin)/python examples/demo_cloud.py $(ARGS)

# Tests start thousands of processes, which would each compile our modules anew where nobody may keep what is compiled.
test: export PYTHONDONTWRITEBYTECODE :=
test: dev node ## Run all tests; ARGS="-k journal -x" goes to pytest, WORKERS=0 runs them one by one
	@$(bin)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: dev types ## Check style, types, import directions, the site and the tree
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy -p lowtide -p lowtide_worker
	$(bin)/mypy $(wildcard $(checked))
	cd .types && ../$(bin)/lint-imports --config ../pyproject.toml --no-cache --no-logo 2>&1
	$(bin)/python infra/dev/cli_docs.py --check
	NO_MKDOCS_2_WARNING=true $(bin)/mkdocs build --strict
	$(bin)/python infra/dev/check_tree.py

bench: dev ## Measure against the bare library and the naive way, side by side
	@$(bin)/python benchmarks/run.py $(ARGS)

docs: dev ## Build the site into site/, the pages of commands included
	$(bin)/python infra/dev/cli_docs.py
	NO_MKDOCS_2_WARNING=true $(bin)/mkdocs build --strict

lock: dev ## Relock requirements/; ARGS=--upgrade takes the newest versions
	infra/dev/lock.sh $(ARGS)

clean: ## Remove what was generated; .venv stays
	rm -rf .types build dist site ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

runtime dev:
	@infra/dev/venv.sh $@

node:
	@infra/dev/node.sh

types: dev
	@$(bin)/python infra/dev/link_types.py .types
