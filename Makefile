# The scripts people run are the ones CI runs. `make demo` and `make test` set up what they need themselves.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: install demo test test-gpu soak lint format clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed, found {sys.version.split()[0]}: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-export.txt requirements-wandb.txt $(VENV)/.installed
	$(RUN) -m pip install --quiet --requirement requirements-dev.txt
	@touch $@

# Trains on the built-in corpus and lists the checkpoints. Run it again: it says that the target is reached.
DEMO := --database_path demo --batch_size 8 --lr 1e-3 --warmup_steps 50 --num_epochs 8 --comment demo
demo: $(VENV)/.installed
	$(RUN) main.py $(DEMO) --auto_resume
	$(RUN) main.py $(DEMO) --list_checkpoints

# Two processes of tests, each with one torch thread: right for 2 cores, and no slower elsewhere. Each begins with half of
# the files, so that what the tests of a file share is made once.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal

# What only a GPU shows: the same bits after stops, saves beside its work. `make test` leaves GPUs alone.
test-gpu: $(VENV)/.installed-dev
	TEST_ON_GPU=1 OMP_NUM_THREADS=1 $(RUN) -m pytest tests/test_gpu.py tests/test_gpu_copies.py

# Kills trainings, evaluations and exports 1,000 times, damages checkpoints 2,000 times, tries 100,000 crash states, lets
# every call of trainings fail, kills single processes of several, and cuts the power at every step of a save. Many
# hours. The last part needs root.
soak: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(RUN) -m benchmarks.kills 1000
	OMP_NUM_THREADS=1 $(RUN) -m benchmarks.damage 2000
	OMP_NUM_THREADS=1 $(RUN) -m benchmarks.crash_states
	OMP_NUM_THREADS=1 $(RUN) -m benchmarks.fault_sweep
	OMP_NUM_THREADS=1 $(RUN) -m benchmarks.rank_kills 50
	OMP_NUM_THREADS=1 $(RUN) -m benchmarks.two_nodes
	OMP_NUM_THREADS=1 $(RUN) -m pytest tests/test_power_cut.py -rs

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
