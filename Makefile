# The whole interface for a developer. Every target sets up what it needs in .venv, and does nothing twice.

VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt
USER := $(VENV)/.installed
DEVELOPER := $(VENV)/.installed-developer
PEERS_VENV := .venv-peers
PEERS := $(PEERS_VENV)/.installed
OUT ?= out
JOBS ?= 2

# One thread for each test process: more only get into each other's way.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test check integration fuzz bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(PYTHON):
	python3 -m venv $(VENV)

$(USER): pyproject.toml constraints.txt | $(PYTHON)
	$(INSTALL) -e .
	@touch $@

# Of the extra nnunet without timm and torchvision: the networks of nnU-Net import neither.
NNUNET := 'dynamic-network-architectures>=0.4'

$(DEVELOPER): $(USER)
	$(INSTALL) -e '.[test,docs,train,hospital,onnx,openvino,monai]'
	$(INSTALL) --no-deps $(NNUNET)
	@touch $@

# grad-cam and zennit need torchvision, which no CPU build of torch brings: apart, and torch itself is shared by a path.
PEER_PACKAGES := torchvision==0.28.0 grad-cam==1.5.7 zennit==0.5.1 ttach==0.0.3 opencv-python-headless==5.0.0.93
# LGPL: called by verification and benchmarks alone, nothing of it is copied; what it needs of others is here already.
PEER_PACKAGES += quantus==0.6.0
# MIT, BSD, Apache: for tests and benchmarks alone. They bring numba, for which wheels exist; torch is held by the constraint.
PEER_RANGES := 'shap>=0.51,<0.52' 'lime>=0.2.0.1,<0.3' 'SALib>=1.5,<2' 'itk>=5.4,<5.5'
SITE := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'

$(PEERS): $(DEVELOPER) Makefile
	$(PYTHON) -m venv $(PEERS_VENV)
	{ $(PYTHON) $(SITE); echo "$(CURDIR)/src"; } > "$$($(PEERS_VENV)/bin/python $(SITE))/pellucid-shared.pth"
	$(PEERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(PEER_PACKAGES)
	$(PEERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PEER_RANGES)
	@touch $@

demo: $(USER) ## explain and score real cases; open out/demo/index.html
	$(VENV)/bin/pellucid demo --out $(OUT)/demo

test: $(DEVELOPER) ## all tests that need no server, browser or environment of their own
	$(ONE_THREAD) $(PYTHON) -m pytest -m "not integration" -n $(JOBS) --dist worksteal

check: $(DEVELOPER) ## format, lint, types, floors, spelling, and the rules of the house
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/codespell
	$(ONE_THREAD) $(PYTHON) -m pytest tests/house

integration: $(DEVELOPER) $(PEERS) ## tests with servers, a browser and installed peers
	.ci/chromium
	.ci/hospital
	$(ONE_THREAD) $(PYTHON) -m pytest -m integration

fuzz: $(DEVELOPER) ## mutated DICOM headers, archives and indexes for SECONDS (600); SEED says which
	$(ONE_THREAD) $(PYTHON) tests/fuzz/headers.py --seconds $(or $(SECONDS),600) --seed $(or $(SEED),0)

bench: $(DEVELOPER) $(PEERS) ## measure speed and memory beside the peers; prints a table and JSON
	@$(ONE_THREAD) $(PEERS_VENV)/bin/python benchmarks/run.py --out benchmarks/results

docs: $(DEVELOPER) ## build the documentation, warnings as errors
	$(ONE_THREAD) $(PYTHON) -m sphinx -W --keep-going -q -b html docs $(OUT)/docs
	@echo "$(OUT)/docs/index.html"

clean: ## remove what the targets made, except the environment
	rm -rf $(OUT)/docs docs/generated docs/gallery docs/_build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
