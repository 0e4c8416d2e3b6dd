# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PARALLEL := -n 2 --dist loadgroup
CHECKOV := build/checkov
BENCH := build/bench/venv
QUICK ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check bench lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(INSTALLED) ## create .venv from the lock, with the environments of the local images

$(INSTALLED): pyproject.toml constraints.txt inference/requirements.txt workflow/local/images.py
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Kelpie needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m workflow.local.images & \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' && wait $$!
	touch $@

demo: $(INSTALLED) ## from drawn dogs to a served, smoke-tested endpoint, on this machine
	$(BIN)/kelpie example dogs build/demo/dogs
	$(BIN)/kelpie local up
	$(BIN)/kelpie local fault spot-interruption --after-checkpoints 1
	$(BIN)/kelpie start --local --data build/demo/dogs --watch
	$(BIN)/kelpie describe --json > build/demo/summary.json
	$(BIN)/kelpie describe
	$(BIN)/kelpie report --output build/demo/report.html
	@echo
	@echo "The endpoint serves. Try:  .venv/bin/kelpie predict build/demo/dogs/test/*/*0.jpg"
	@echo "Look at the report, build/demo/report.html; the summary is build/demo/summary.json; end the local cloud with:  .venv/bin/kelpie local down"

test: $(INSTALLED) ## the fast tests, real executions among them
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(INSTALLED) ## every test that runs offline, slow drills too
	$(BIN)/python -m pytest $(PARALLEL) -m 'not browser and not aws'

check: $(INSTALLED) $(CHECKOV)/.installed ## lint, types, import directions, spelling, template, definition
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/cfn-lint workflow/stack.yaml
	$(BIN)/kelpie definition > build/definition.asl.json
	$(BIN)/statelint build/definition.asl.json
	$(CHECKOV)/bin/checkov --framework cloudformation --file workflow/stack.yaml --compact --quiet --skip-download

# checkov wants older libraries than we do, so it has an environment of its own. It needs no network once installed.
$(CHECKOV)/.installed: checkov.lock
	rm -rf $(CHECKOV) && $(PYTHON) -m venv $(CHECKOV)
	$(CHECKOV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement checkov.lock
	touch $@

bench: $(BENCH)/.installed ## measure everything, on a quiet machine, and write the tables (make bench-NAME: one script)
	$(BIN)/python -m benchmarks $(QUICK)
	$(BIN)/python -m benchmarks.tables

bench-%: $(BENCH)/.installed
	$(BIN)/python -m benchmarks $* $(QUICK)
	$(BIN)/python -m benchmarks.tables

# What Kelpie is compared with stays out of its own environment. Torch is not installed twice: the path file lends the
# project's libraries, behind the ones that are installed here.
$(BENCH)/.installed: benchmarks/requirements.txt $(INSTALLED)
	rm -rf $(BENCH) && $(BIN)/python -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement benchmarks/requirements.txt
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $(BENCH)/lent.pth
	mv $(BENCH)/lent.pth "$$($(BENCH)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	touch $@

lock: ## write constraints.txt and checkov.lock from fresh environments
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet '.[dev]'
	build/lock/bin/python -m pip freeze --exclude kelpie > constraints.txt
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet checkov
	build/lock/bin/python -m pip freeze > checkov.lock
	rm -rf build/lock

clean: ## remove everything that the targets made
	-$(BIN)/kelpie local down
	rm -rf .venv build .kelpie
