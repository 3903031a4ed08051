# The few commands people type. Each does its own set-up; `make help` lists them.
LAB ?= $(or $(RFE_LAB),$(HOME)/rfe-lab)
IMAGE ?= localhost/rfe-workbook
BIN := .venv/bin
# Two workers: one for everything with a machine, one for the quick tests (tests/conftest.py).
PYTEST := $(BIN)/pytest -n 2 --dist loadscope

.DEFAULT_GOAL := help
.PHONY: help set-up workbook jupyter image doctor lint test test-quick test-full docs record vendor clean
VENDOR := rfe_helpers/workbook/static/vendor

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

set-up:  ## install what is missing and make .venv
	@./set-up

workbook: set-up  ## run the short path (00 to 60, and 90): from nothing to a machine that was rolled back
	@$(BIN)/rfe run --lab $(LAB)

jupyter: set-up  ## open the notebooks in JupyterLab
	@$(BIN)/rfe lab open --lab $(LAB)

image: set-up  ## make the container image of the workbook (CACHE=1: with all that it fetches)
	@$(if $(CACHE),$(BIN)/rfe cache)
	@container/build $(IMAGE) $(if $(CACHE),$(or $(RFE_CACHE),$(HOME)/.cache/rfe))

doctor: set-up  ## show what this machine has and lacks
	@$(BIN)/rfe doctor

dev:
	@./set-up --dev

lint: dev  ## format, lint, types, layers, spelling, notebooks without outputs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell $$(git ls-files)
	$(BIN)/nbstripout --verify --keep-id --keep-count notebooks/*.ipynb

test-quick: lint  ## lint and all tests that need no machine
	$(PYTEST) -m "not slow and not full"

test: lint  ## everything, the life cycle with a real machine included (at most 45 minutes)
	$(PYTEST) -m "not full"

test-full: lint  ## also the long tests
	$(PYTEST)

docs: dev  ## build the site, with the recorded executions: build/site/index.html
	$(BIN)/sphinx-build -q -W --keep-going -j auto -c docs/sphinx . build/site
	@echo $(CURDIR)/build/site/index.html

record: dev  ## run all notebooks, and record their outputs and pictures for the site
	$(BIN)/rfe run --all --exercises --lab $(LAB)
	$(BIN)/python docs/sphinx/recordings.py $(LAB)
	$(BIN)/python docs/sphinx/panels.py $(LAB)

vendor:  ## renew noVNC and xterm.js, as their package-lock.json pins them (needs npm)
	npm ci --prefix $(VENDOR) --ignore-scripts --no-audit --no-fund
	rm -rf $(VENDOR)/novnc $(VENDOR)/xterm
	mkdir $(VENDOR)/novnc $(VENDOR)/xterm
	cd $(VENDOR)/node_modules/@novnc/novnc && cp -r core vendor AUTHORS LICENSE.txt docs/LICENSE.MPL-2.0 $(CURDIR)/$(VENDOR)/novnc
	cd $(VENDOR)/node_modules/@xterm/xterm && cp LICENSE css/xterm.css $(CURDIR)/$(VENDOR)/xterm
	cp $(VENDOR)/node_modules/@xterm/xterm/lib/xterm.mjs $(VENDOR)/xterm/xterm.js
	rm -r $(VENDOR)/node_modules

clean:  ## remove the lab with its machines; the cache and .venv stay
	@$(BIN)/rfe lab clean --lab $(LAB)
