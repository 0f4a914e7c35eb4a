# `make help` lists the targets. Everything happens in .venv and build/; after the first `make run` or
# `make test` has installed and fetched, no target needs the network.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# A processor without AVX-512, AMX and bfloat16, for PyTorch's oneDNN and for PyTorch's own kernels, and one thread.
LESSER := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=1

# The hub is not asked while the notebooks and tests run, unless HF_HUB_OFFLINE says otherwise.
run test test-lesser test-browser: export HF_HUB_OFFLINE := $(or $(HF_HUB_OFFLINE),1)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: fetch  ## execute every notebook and write the book: build/book/index.html
	$(BIN)/python -m supertf.lab.book run

test: fetch  ## lint, types, unit tests, notebooks with quick parameters and solved exercises, nbval
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p no:nbval -n 2 --dist worksteal -m "not browser"
	$(BIN)/python -m supertf.lab.book smoke
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbval-lax --nbval-cell-timeout=1800 build/smoke/01_a_small_gpt.ipynb

test-lesser: fetch  ## what uses kernels, on one thread of a processor that has fewer of them, pretended
	$(LESSER) $(BIN)/python -m pytest -p no:nbval -n 2 --dist worksteal -m "kernels and not browser"
	$(LESSER) $(BIN)/python -m supertf.lab.book smoke 08_smaller_and_faster 09_quantization

test-browser: fetch  ## notebooks in JupyterLab and the book in Chromium: sliders, explorers, links, search
	$(BIN)/python -m pytest -p no:nbval -m browser -rsP tests/lab

lab: fetch  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=notebooks

save: fetch  ## execute the notebooks and store them with their outputs
	$(BIN)/python -m supertf.lab.book save

badges: $(INSTALLED)  ## make badges REPO=owner/name: set the repository's address everywhere
	$(BIN)/python -m supertf.lab.badges $(REPO)

wheel: $(INSTALLED)  ## dist/supertf-*.whl, for a Colab that cannot reach the repository
	$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation --wheel-dir dist .

COLAB := build/colab/bin/python

colab-check: fetch wheel  ## install as the setup cell does beside the packages that Colab has; run everything
	rm -rf build/colab
	$(PYTHON) -m venv build/colab
	$(COLAB) -m pip install -q --disable-pip-version-check -r tests/colab.txt
	cd dist && ../$(COLAB) ../tests/colab_setup.py ../notebooks/00_start_here.ipynb
	$(COLAB) -m supertf.lab.book smoke
	$(COLAB) -m pytest -m "not browser" tests/lab/test_plots.py tests/lab/test_plots_pruning.py \
	  tests/lab/test_plots_quantization.py tests/lab/test_plots_superweights.py \
	  tests/lab/test_plots_speed.py tests/lab/test_explorers.py

fetch: $(INSTALLED)
	@$(BIN)/supertf fetch

# The pins first, then the package itself: editable, so that edits need no reinstall and the `supertf`
# command exists; without dependencies and build isolation, so that nothing beyond the pins is installed.
$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "supertf needs Python 3.10 or newer, \
	$(PYTHON) is " + sys.version.split()[0] + ": choose one with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:  ## remove what was built, not .venv nor the fetched model
	rm -rf build dist *.egg-info

.PHONY: help run test test-lesser test-browser lab save badges wheel colab-check fetch clean
