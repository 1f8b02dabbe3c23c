# Metazoo: every target sets itself up, so the first one to run installs the pinned dependencies into .venv.
#
#   make demo     the whole path on real digits: zoo, graphs, two metanetworks, baselines, CKA, report (runs/demo)
#   make test     the tests; with PYTEST_ADDOPTS=--hypothesis-profile=thorough many more generated examples
#   make check    format, lint and types
#   make campaign random faults while a zoo trains, random damage to a dataset, random kills while one is written: half an
#                 hour; writes the pages in docs/campaigns
#   make bench    every program in benchmarks/, one after the other
#
# Another interpreter: make test PYTHON=/path/to/python3.11

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := test
.PHONY: demo test check campaign bench

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

campaign: .venv/installed
	@failed=0; \
	for program in zoo damage datasets; do \
	    echo "tests/campaign_$$program.py"; \
	    PYTHONPATH=. $(RUN) -W ignore tests/campaign_$$program.py || failed=1; \
	done; \
	exit $$failed

bench: .venv/installed
	@for program in benchmarks/*.py; do \
	    echo "$$program"; \
	    $(RUN) -W ignore -m benchmarks.$$(basename "$$program" .py); \
	done

DEMO := runs/demo
SEEDS := 0 1
TRAINING := --config configs/training/accuracy.yaml --data.path $(DEMO)/graphs.zarr
REPRESENT := --graphs $(DEMO)/graphs.zarr --epochs '[14]'

# Stopped and started again, the demo goes on: what is finished is kept. A metanetwork that is not represented yet is
# trained again; baselines and report are made again every time.
demo: .venv/installed
	$(eval STARTED := $(shell date +%s))
	@echo "== zoo: train small CNNs on digits, a Ray job"
	@$(RUN) -m pipeline zoo --config configs/zoo/digits.yaml --out $(DEMO)/zoo
	@echo; echo "== graphs: every checkpoint as a parameter graph, a Ray job"
	@$(RUN) -m pipeline graphs --zoo $(DEMO)/zoo --out $(DEMO)/graphs.zarr
	@echo; echo "== fit, predict, represent: two metanetworks at a time, the bar is of the first; and an untrained twin"
	@$(MAKE) --no-print-directory -j2 $(SEEDS:%=$(DEMO)/representations/gmn-seed-%) $(DEMO)/representations/gmn-untrained
	@echo; echo "== baselines: what simpler views of the same networks predict"
	@$(RUN) -m training baselines --path $(DEMO)/graphs.zarr --out $(DEMO)/predictions
	@echo; echo "== cka: every layer of one metanetwork against every layer of the other, a Ray job"
	@$(RUN) -m analysis cka --representations $(DEMO)/representations --out $(DEMO)/cka.parquet
	@echo; echo "== report"
	@$(RUN) -m analysis report --cka $(DEMO)/cka.parquet --predictions $(DEMO)/predictions --graphs $(DEMO)/graphs.zarr \
	    --out $(DEMO)/report
	@echo; echo "make demo took $$(( $$(date +%s) - $(STARTED) )) s; everything is in $(DEMO)"

# One thread each: on tensors of this size a second one only waits.
$(DEMO)/representations/gmn-seed-%: $(DEMO)/graphs.zarr/manifest.json
	@rm -rf $(DEMO)/training/gmn-seed-$*
	@OMP_NUM_THREADS=1 $(RUN) -m training fit $(TRAINING) --seed_everything $* \
	    --trainer.default_root_dir $(DEMO)/training/gmn-seed-$* $(if $(filter-out 0,$*),--trainer.enable_progress_bar false)
	@OMP_NUM_THREADS=1 $(RUN) -m training predict $(TRAINING) --trainer.enable_progress_bar false \
	    --ckpt_path $(DEMO)/training/gmn-seed-$*/checkpoints/best.ckpt \
	    --trainer.default_root_dir $(DEMO)/predictions/gmn-seed-$*
	@OMP_NUM_THREADS=1 $(RUN) -m analysis represent $(REPRESENT) --out $@ \
	    --checkpoint $(DEMO)/training/gmn-seed-$*/checkpoints/best.ckpt

$(DEMO)/representations/gmn-untrained: $(DEMO)/representations/gmn-seed-0
	@OMP_NUM_THREADS=1 $(RUN) -m analysis represent $(REPRESENT) --out $@ --untrained_seed 0 \
	    --checkpoint $(DEMO)/training/gmn-seed-0/checkpoints/best.ckpt
