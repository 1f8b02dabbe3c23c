# Metazoo: every target sets itself up, so the first one to run installs the pinned dependencies into .venv.
#
#   make demo     the whole path on real digits: zoo, graphs, two metanetworks, baselines, CKA, report (runs/demo)
#   make test     the tests; with PYTEST_ADDOPTS=--hypothesis-profile=thorough many more generated examples
#   make check    format, lint and types
#   make bench    every program in benchmarks/, one after the other
#
# Another interpreter: make test PYTHON=/path/to/python3.11

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := test
.PHONY: demo test check bench

PYTHON ?= $(shell for name in python3.11 python3; do \
    if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$name; break; fi; done)
RUN := .venv/bin/python

.venv/installed: pyproject.toml constraints.txt
	@if [ -z '$(PYTHON)' ]; then echo 'Python 3.11 or newer is needed: make test PYTHON=/path/to/python3.11' >&2; exit 1; fi; \
	echo "Setting up .venv with $$($(PYTHON) --version): about 2 GB, some minutes the first time."; \
	$(PYTHON) -m venv .venv; \
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt '.[test]'; \
	rm -rf build metazoo.egg-info; \
	touch $@; \
	echo "Set up in $$SECONDS s."

test: .venv/installed
	@$(RUN) -m pytest -q --durations=10 --durations-min=2

check: .venv/installed
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m pyright

bench: .venv/installed
	@for program in benchmarks/*.py; do \
	    echo "$$program"; \
	    started=$$SECONDS; \
	    $(RUN) "$$program"; \
	    echo "$$program took $$((SECONDS - started)) s"; \
	done

DEMO := runs/demo
STEP = @echo; echo "== $(1), after $$(( $$(date +%s) - $(STARTED) )) s"

demo: .venv/installed
	$(eval STARTED := $(shell date +%s))
	$(call STEP,zoo: train small CNNs on digits as a Ray job)
	@$(RUN) -m pipeline zoo --config configs/zoo/digits.yaml --out $(DEMO)/zoo
	$(call STEP,graphs: turn every checkpoint into a parameter graph)
	@$(RUN) -m pipeline graphs --zoo $(DEMO)/zoo --out $(DEMO)/graphs.zarr
	$(call STEP,fit: train two metanetworks to predict test accuracy)
	@for SEED in 0 1; do \
	    $(RUN) -m training fit --config configs/training/accuracy.yaml --data.path $(DEMO)/graphs.zarr \
	        --seed_everything $$SEED --trainer.default_root_dir $(DEMO)/gmn-$$SEED; \
	    $(RUN) -m training predict --config configs/training/accuracy.yaml --data.path $(DEMO)/graphs.zarr \
	        --ckpt_path $(DEMO)/gmn-$$SEED/last.ckpt --trainer.default_root_dir $(DEMO)/gmn-$$SEED; \
	done
	$(call STEP,baselines: what weight statistics or hyperparameters or training accuracy alone predict)
	@$(RUN) -m training baselines --graphs $(DEMO)/graphs.zarr --out $(DEMO)/baselines
	$(call STEP,represent: the layers of both metanetworks on held-out graphs)
	@for SEED in 0 1; do \
	    $(RUN) -m analysis represent --checkpoint $(DEMO)/gmn-$$SEED/last.ckpt --graphs $(DEMO)/graphs.zarr \
	        --out $(DEMO)/representations/gmn-$$SEED; \
	done
	$(call STEP,cka: every layer of one against every layer of the other)
	@$(RUN) -m analysis cka --representations $(DEMO)/representations --out $(DEMO)/cka
	$(call STEP,report)
	@$(RUN) -m analysis report --cka $(DEMO)/cka --predictions $(DEMO) --out $(DEMO)/report
	@echo; echo "make demo took $$(( $$(date +%s) - $(STARTED) )) s; everything is under $(DEMO)/"
