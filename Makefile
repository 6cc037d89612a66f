# make lab     open the course in JupyterLab        (ARGS=--no-browser for a server)
# make test    checks, tests and notebooks          (TESTARGS="-k sink -x" goes to pytest)
# make check   ruff and mypy alone
# make conformance   measure docs/conformance.md anew (minutes)
# make performance   measure docs/performance.md anew: CHECKPOINT=FOLDER of a gpt-oss-20b; an hour, in any pieces
# make pictures      take the pictures of docs/explorer.md and the README anew (needs Chromium)
# make ladder        docs/ladder.md, its pictures, docs/claims.md and notebooks 07 to 09 anew, from the ladder's results
# make setup   the environment alone
# make clean   remove .venv and everything else that was made
#
# Each needs python3 (3.10 or newer; PYTHON=python3.12 chooses another) and pip, and makes .venv with the pinned set first.

PYTHON ?= python3
ARGS ?=
TESTARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
NOTEBOOK := notebooks/00_start_here.ipynb
ROOT_FLAG := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: lab test check conformance performance pictures ladder setup clean
.DELETE_ON_ERROR:

lab: $(STAMP)
	@test -f $(NOTEBOOK) || { echo "make lab: $(NOTEBOOK) is missing from this folder" >&2; exit 1; }
	$(BIN)/jupyter lab $(ROOT_FLAG) $(NOTEBOOK) $(ARGS)

# One pytest run for both, so that its last line counts everything. A file or a notebook goes to one of two workers.
# --nbval compares what each cell prints with what is saved in the notebook, after notebooks/nbval.cfg has blanked out
# times and addresses: a saved output that is no longer true fails. A cell that cannot repeat itself says so with the
# tag nbval-ignore-output. One thread a worker: two workers with two threads each wait for one another.
test: check
	@ls tests/test_*.py >/dev/null || { echo "make test: no tests here" >&2; exit 1; }
	@ls notebooks/*.ipynb >/dev/null || { echo "make test: no notebooks here" >&2; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" --nbval --nbval-current-env \
	    --nbval-sanitize-with notebooks/nbval.cfg tests notebooks $(TESTARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

conformance: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tests/conformance.py

# BENCHARGS="--minutes 5" stops early (and make says so); the same command goes on with what is left.
PERFORMANCE := gptoss_lab/assets/results/performance
BENCHARGS ?=
performance: $(STAMP)
	@test -f "$(CHECKPOINT)/config.json" || { echo "make performance CHECKPOINT=FOLDER: a gpt-oss-20b in the published" \
	    "layout, the real one or one by benchmarks/random_checkpoint.py; FOLDER.gguf is written beside it" >&2; exit 1; }
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	@mkdir -p $(PERFORMANCE)
	$(BIN)/gptoss-lab bench mini-oss --kernels fast --whole --beside transformers --beside transformers-loop \
	    --out $(PERFORMANCE)/mini-oss.json $(BENCHARGS)
	$(BIN)/gptoss-lab bench $(CHECKPOINT) --whole --beside llama.cpp --beside llama.cpp-mapped \
	    --gguf $(CHECKPOINT).gguf --out $(PERFORMANCE)/gpt-oss-20b.json $(BENCHARGS)
	$(BIN)/python -m gptoss_lab.bench.page docs/performance.md

pictures: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tests/pictures.py

# After results have come in. The notebooks' pictures are of results too, so they are run and saved.
ladder: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m gptoss_lab.training.ladder_report docs/ladder.md
	OMP_NUM_THREADS=1 $(BIN)/python tests/ladder_pictures.py
	OMP_NUM_THREADS=1 $(BIN)/python -m gptoss_lab.study.claims docs/claims.md
	for notebook in 07_gpt2_to_gpt_oss 08_claims_on_trial 09_gpt_oss_beside_qwen3; do \
	    OMP_NUM_THREADS=1 $(BIN)/python tests/run_notebook.py notebooks/$$notebook.ipynb || exit 1; done

setup: $(STAMP)

# The stamp is removed first and written last: an install that was interrupted is taken up again.
$(STAMP): pyproject.toml constraints.txt
	@rm -f $@
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; install Python 3.10 or newer, or say PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "make: $(PYTHON) is `$(PYTHON) -V 2>&1`; 3.10 or newer is needed: make ... PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	    echo "make: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install -c constraints.txt --upgrade pip
	$(BIN)/python -m pip install -c constraints.txt -e '.[notebooks,test,train,fast]'
	$(BIN)/python -m pip install -c constraints.txt --no-deps --ignore-requires-python gpt-oss
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@printf '%s\n' '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' \
	    > $(VENV)/share/jupyter/lab/settings/overrides.json
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find gptoss_lab tests -name __pycache__ -type d -prune -exec rm -rf {} +
