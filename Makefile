# Needs Python 3.11, 3.12 or 3.13 with venv, and a package index. Everything else is installed into .venv, once.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || echo python3)
DEMO_DIR ?= run/demo
DEMO_OPTIONS := --gpu_id 0 --arch ResNet-20 --dataset DIGITS
BENCHMARKS := train_step search_step latency torch_pruning coding

PACKAGES := .venv/installed
READY := .venv/bin/secateur
BENCH_READY := .venv/installed-bench
PY := .venv/bin/python
TWO_WORKERS = $(PY) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

# One line that counts on a terminal; silence elsewhere. Errors go to stderr and are shown everywhere.
COUNT = awk -v n="$$(grep -c == $<)" -v tty="$$([ -t 1 ] && echo 1 || true)" \
	'/^Collecting/ && tty {printf "\r\033[K  %d of %d  %s", ++i, n, $$2; fflush()} \
	/^Installing/ && tty {printf "\r\033[K  unpacking"; fflush()} END {if (tty) printf "\r\033[K"}'
INSTALL = .venv/bin/pip install --disable-pip-version-check --progress-bar off

.PHONY: help demo clean-demo test test-runs test-slow chaos bench lint clean
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(READY) ## baseline, search, fine-tuning and report on handwritten digits, in run/demo
	@mkdir -p $(DEMO_DIR)
	$(PY) train_cifar.py $(DEMO_OPTIONS) --target_rate 0.45 --batch_size 32 \
	  --baseline_epoch 40 --train_epoch 16 --train_path $(DEMO_DIR)
	$(PY) test.py $(DEMO_OPTIONS) --trained_param $(DEMO_DIR)/trained_param.pkl

clean-demo: ## forget the demo's run
	rm -rf $(DEMO_DIR)

test: $(READY) ## all tests but most whole runs, searches and trainings
	$(TWO_WORKERS) $(ARGS)

test-runs: $(READY) ## those: recipes, commands on models, searches, trainings, replicas, Python of the pages
	$(TWO_WORKERS) -m "runs and not slow" $(ARGS)

test-slow: $(READY) ## many more random networks; recipes and networks that resemble those of the others
	$(PY) -m pytest -m slow $(ARGS)

chaos: $(READY) ## kill, starve and attack runs; what they survive goes to benchmarks/results; ARGS="--help"
	$(PY) -m tests.chaos $(ARGS)

bench: $(BENCH_READY) ## speed, next to PyTorch and plain TensorFlow, in run/bench
	export SECATEUR_RESULTS=run/bench; for name in $(BENCHMARKS); do $(PY) -m benchmarks.$$name; done

lint: $(READY) ## ruff: rules and format; mypy: types of the public API
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(PY) -m tests.typing

clean: ## remove .venv and caches; runs stay
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last: an installation that was cut off is done again.
$(PACKAGES): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "Secateur needs Python 3.11, 3.12 or 3.13: make PYTHON=… Received: $$($(PYTHON) --version 2>&1)" >&2; exit 1; }
	@echo "Installing $$(grep -c == $<) packages into .venv (2.7 GB, some minutes)"
	@$(PYTHON) -m venv .venv
	@start=$$SECONDS; $(INSTALL) --no-deps -r $< | $(COUNT); \
	  echo "installed in $$((SECONDS - start)) s"
	@touch $@

# This folder on the path of .venv, and the program `secateur`: what is edited here runs from anywhere.
$(READY): $(PACKAGES)
	@echo "$(CURDIR)" > "$$($(PY) -c 'import site; print(site.getsitepackages()[0])')/secateur.pth"
	@printf '#!%s\nimport sys\n\nfrom secateur.__main__ import main\n\nsys.exit(main())\n' "$(CURDIR)/$(PY)" > $@
	@chmod +x $@

# With dependencies here: a CPU build of PyTorch, where pip finds one, needs none of the GPU packages.
$(BENCH_READY): requirements-bench.lock $(READY)
	@echo "Installing PyTorch and JAX for the benchmarks"
	@$(INSTALL) -r $< -c requirements.lock | $(COUNT)
	@touch $@
