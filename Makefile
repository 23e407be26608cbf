# make demo     the image service, on a local folder
# make demo-training   the training pipeline, on a local folder
# make check    lint, types and the fast tests, of the tree as it is (two minutes)
# make test     lint, types, the wheel, and its tests (ten minutes)
# make torture  the long tests (45 minutes)
# make bench    the benchmarks, on tmpfs and in the NFS lab (the figures go to dist/figures.json)
# make layer    the Lambda layer's zips
# make sbom     the list of components, as CycloneDX JSON
# make docs     the site, into dist/site
# make dev      an environment to work in (editable)
# Each sets up what it needs, from a bare clone, on a machine with Python 3.11 or newer.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Without bytecode each of some hundred processes would compile all that it imports.
export PYTHONDONTWRITEBYTECODE =
CODE = src tests benchmarks examples scripts
# The wheel takes the place of the installed package (an editable one of `make dev` too):
# tests see what users get.
PIP = $(BIN)/python -m pip --quiet
REMOVE = $(PIP) uninstall --yes efsstate 2>/dev/null
WHEEL = $(REMOVE); $(PIP) install "$$(ls dist/*.whl)[cli,aws,numpy]"

.PHONY: installed demo demo-training check test test-heavy torture bench layer sbom docs dev lint wheel sdist clean packages

demo: $(VENV)/.demo wheel
	$(REMOVE); $(PIP) install "$$(ls dist/*.whl)"
	$(BIN)/python -m examples.image_service

demo-training: $(VENV)/.demo wheel
	$(REMOVE); $(PIP) install "$$(ls dist/*.whl)[numpy]"
	$(BIN)/python -m examples.training

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	PYTHONPATH="$(CURDIR)/src" scripts/tests $(BIN)/python --fast -q

# Debian's packages are installed beside Python's.
test:
	@scripts/packages & $(MAKE) --no-print-directory $(VENV)/.test $(VENV)/.demo lint && wait $$!
	scripts/tests $(BIN)/python

test-heavy: packages $(VENV)/.test $(VENV)/.heavy wheel
	$(WHEEL)
	$(BIN)/python -m pytest -m heavy

torture: packages $(VENV)/.test wheel
	$(WHEEL)
	$(BIN)/python -m tests.torture

bench: packages $(VENV)/.test $(VENV)/.bench wheel
	$(WHEEL)
	$(BIN)/python -m benchmarks --all --json dist/figures.json

layer: wheel
	$(BIN)/python scripts/layer.py

sbom: $(VENV)/.release wheel
	$(BIN)/python scripts/sbom.py

dev: packages $(VENV)/.dev

$(VENV)/.dev: $(VENV)/.test
	$(REMOVE); $(PIP) install --editable ".[cli,aws,numpy]"
	touch $@

# mypy reads the types of what is installed: the wheel comes first.
lint: $(VENV)/.test installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

installed: wheel
	$(WHEEL)

wheel: $(VENV)/.venv
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist . >/dev/null

docs: $(VENV)/.docs wheel
	$(REMOVE); $(PIP) install "$$(ls dist/*.whl)[cli,aws]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo dist/site/index.html

sdist: wheel
	$(BIN)/python -m build --sdist --outdir dist . >/dev/null

packages:
	@scripts/packages

$(VENV)/.venv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"efsstate needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" build
	touch $@

# The groups of pyproject.toml: what tests need is installed beside the wheel, which comes later.
# Their bytecode is compiled as they are imported: most modules never are, and pip would take 40 s.
$(VENV)/.test: pyproject.toml $(VENV)/.venv
	$(BIN)/python -m pip install --quiet --no-compile --group test --group lint
	touch $@

$(VENV)/.heavy: pyproject.toml $(VENV)/.venv
	$(BIN)/python -m pip install --quiet --group heavy
	touch $@

$(VENV)/.docs: pyproject.toml $(VENV)/.venv
	$(BIN)/python -m pip install --quiet --group docs
	touch $@

$(VENV)/.release: pyproject.toml $(VENV)/.venv
	$(BIN)/python -m pip install --quiet --group release
	touch $@

$(VENV)/.bench: pyproject.toml $(VENV)/.venv
	$(BIN)/python -m pip install --quiet --group bench
	touch $@

$(VENV)/.demo: examples/image_service/requirements.txt pyproject.toml $(VENV)/.venv
	$(BIN)/python -m pip install --quiet --group demo -r examples/image_service/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
