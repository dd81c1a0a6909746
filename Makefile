# All set-up and every check. `make help` lists the targets.
# A fresh machine needs Python 3.11 or newer, make and pip; nothing is installed outside .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.expertmesh-run
ENV_STAMP := $(VENV)/.expertmesh-env
DEV_STAMP := $(VENV)/.expertmesh-dev
QUESTION := What is 4728 + 1595?
FAST := not slow and not gpu and not checkpoint
SLOW := slow and not gpu and not checkpoint
SLOW_OR_RANDOM := (slow or hypothesis) and not gpu and not checkpoint
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile
NATIVE := $(wildcard rpc/hop/native/* moe_model/kernels/cpu/native/*)
KERNEL_TESTS := tests/unit/moe_model/kernels/cpu tests/unit/moe_model/backends \
  tests/unit/moe_model/weights/test_packed_checkpoint.py \
  tests/unit/attention_svc/engine/test_native_attention.py \
  tests/unit/attention_svc/engine/test_native_step.py
GPU_KERNEL_TESTS := $(addprefix tests/unit/moe_model/kernels/cuda/,test_attention.py test_codes.py \
  test_experts.py test_packing.py test_rows.py) \
  tests/unit/moe_model/kernels/cuda/graphs/test_tiles.py
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all

.DEFAULT_GOAL := help
.PHONY: help env run test test-random test-slow test-gpu test-sanitize-gpu test-clients \
  test-compose test-sanitize check protos bench clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(ENV_STAMP)  ## Make .venv with the package (editable) and the test extra

run: $(RUN_STAMP)  ## Start all on the bundled model, ask a question, keep serving; PORT=8501: there
	@$(BIN)/expertmesh up $(if $(PORT),--http-port "$(PORT)") --ask "$(QUESTION)"

test: env  ## The fast tests: no GPU, no network, under 5 minutes on 2 cores
	$(BIN)/python -m pytest -m "$(FAST)" $(PARALLEL)

test-random: env  ## The fast tests by examples, with other examples in each run
	$(BIN)/python -m pytest --hypothesis-profile random -m "hypothesis and $(FAST)" $(PARALLEL)

# First the slow tests that do not mind company, and the random ones with several times the examples
# of `make test`; then those with whole clusters, one at a time.
test-slow: env  ## The slow tests: whole clusters, several machines in network namespaces
	$(BIN)/python -m pytest -m "$(SLOW_OR_RANDOM)" --hypothesis-profile ci $(PARALLEL) \
	  tests/unit tests/contract
	$(BIN)/python -m pytest -m "$(SLOW)" --ignore tests/unit --ignore tests/contract

# The kernels' own tests run on the card, too, where there is one. One process: kernels are compiled
# once, and meshes do not share the card.
test-gpu: env  ## What needs a CUDA device, and the CUDA kernels' tests on it
	$(BIN)/python -m pytest -m gpu --timeout 600
	$(BIN)/python -m pytest --timeout 600 tests/unit/moe_model/kernels/cuda tests/parity

# Once for each change of a kernel. With an environment that is there already:
# make -o env test-sanitize-gpu BIN=/its/bin
# Memcheck sees what lies beyond a tensor only if torch asks CUDA for each tensor's memory by
# itself, which a graph cannot: graphs launch the same kernels. Racecheck looks at shared memory.
test-sanitize-gpu: env  ## The CUDA kernels under compute-sanitizer: memcheck, racecheck
	@command -v compute-sanitizer >/dev/null \
	  || { echo "compute-sanitizer is not on PATH; it is part of NVIDIA's CUDA toolkit"; exit 1; }
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
	  || { echo "there is no CUDA device: the kernels would run in Triton's interpreter"; exit 1; }
	PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 9 \
	  $(BIN)/python -m pytest -x --timeout 3600 -p no:cacheprovider $(GPU_KERNEL_TESTS)
	compute-sanitizer --tool racecheck --error-exitcode 9 \
	  $(BIN)/python -m pytest -x --timeout 3600 -p no:cacheprovider $(GPU_KERNEL_TESTS)

# Each client has an environment of its own below .clients; npm and pip fetch them.
test-clients: env  ## Real clients against the real gateway
	EXPERTMESH_TEST_CLIENTS=1 $(BIN)/python -m pytest tests/clients

# It runs in the terminal's foreground, or its first write to the terminal would stop it; and what
# it starts must not wait for keys.
test-compose: env  ## The compose cluster on a real engine; deploy/README.md says what it needs
	EXPERTMESH_TEST_COMPOSE=1 \
	  $(BIN)/python -m pytest -x -s -o faulthandler_timeout=0 tests/compose </dev/null

# Built into a temporary folder. Python itself has no sanitizer, so the sanitizer's runtime is
# loaded first. Leaks are not looked for: Python and others' libraries leave memory behind.
test-sanitize: env  ## The CPU kernels' tests under AddressSanitizer and UBSan (needs gcc)
	@built=$$(mktemp -d) && trap 'rm -rf "$$built"' EXIT \
	  && CFLAGS="$(SANITIZE) -g" CXXFLAGS="$(SANITIZE) -g" LDFLAGS="$(SANITIZE)" \
	    $(BIN)/python setup.py \
	    build_ext --build-lib "$$built" --build-temp "$$built/objects" --quiet \
	  && kernels=$$(ls "$$built"/moe_model/kernels/cpu/_kernels*.so) \
	  && EXPERTMESH_CPU_KERNELS_PATH="$$kernels" ASAN_OPTIONS=detect_leaks=0 \
	    UBSAN_OPTIONS=print_stacktrace=1 \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
	    $(BIN)/python -m pytest -x --timeout 600 -p no:cacheprovider $(KERNEL_TESTS)

check: $(DEV_STAMP)  ## Format, lint, types, import directions, stubs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run -Werror $(filter %.c %.cpp %.h,$(NATIVE))
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit/test_architecture.py
	@stubs=$$(mktemp -d) && trap 'rm -rf "$$stubs"' EXIT \
	  && $(BIN)/python protos/generate.py "$$stubs" \
	  && for stub in "$$stubs"/protos/*; do \
	       cmp -s "$$stub" "protos/$${stub##*/}" \
	         || { echo "protos/$${stub##*/} does not fit its .proto: run 'make protos'"; exit 1; }; \
	     done \
	  && echo "stubs are current"

protos: $(DEV_STAMP)  ## Regenerate the gRPC stubs
	$(BIN)/python protos/generate.py

bench: env  ## The benchmarks; each prints JSON as its last line
	$(BIN)/python bench/mesh/hop.py
	$(BIN)/python bench/kernels/attention.py
	$(BIN)/python bench/kernels/kernels.py --rounds 5
	$(BIN)/python bench/mesh/serve.py

clean:  ## Remove .venv and every generated folder
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Without ensurepip (some distributions split it off) the pip of $(PYTHON) fills the environment.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); \
	try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null \
	  || { $(PYTHON) -m venv --without-pip --clear $(VENV) \
	       && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }

# Also after native code has changed: Python would refuse a module built from older sources, and
# would run on torch.
$(RUN_STAMP): pyproject.toml setup.py $(NATIVE) | $(BIN)/python
	@echo "installing into $(VENV); the first time downloads torch (README: 'What is downloaded')"
	$(BIN)/python -m pip install --editable .
	@touch $@

$(ENV_STAMP): pyproject.toml setup.py $(NATIVE) | $(BIN)/python
	@echo "installing into $(VENV); the first time downloads torch (README: 'What is downloaded')"
	$(BIN)/python -m pip install --editable '.[test]'
	@touch $(RUN_STAMP) $@

$(DEV_STAMP): $(ENV_STAMP)
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@
