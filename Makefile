# make study   set up what is missing, run the study, print where the report is
# make bench-train    the same for training steps on synthetic batches; times want a machine that does nothing else
# make test    set up what is missing, run the tests
# make lint    what .ci/run checks besides the tests
#
# CONFIG=config/eurosat.yaml chooses another study, CORES=1 uses fewer cores, ARGS="-n" goes to snakemake or pytest.

PYTHON ?= python3
CONFIG ?= config/config.yaml
CORES ?= all
ARGS ?=
BIN := .venv/bin
SOURCES := CMakeLists.txt pyproject.toml $(wildcard workflow/schemas/*.yaml cpp/*.* cpp/*/*.*) $(shell find rvkernels -name '*.py' -o -name '*.j2' -o -name '*.css' -o -name '*.js' -o -name '*.mplstyle')

.PHONY: study bench-train test lint setup clean

study: setup
	@$(BIN)/rvk check $(CONFIG)
	@PATH="$$PWD/$(BIN):$$PATH" workflow/run.sh --configfile $(CONFIG) --cores $(CORES) $(ARGS)
	@$(BIN)/rvk check --report $(CONFIG)

bench-train: setup
	@$(BIN)/rvk check $(CONFIG)
	@PATH="$$PWD/$(BIN):$$PATH" workflow/run.sh --configfile $(CONFIG) --cores $(CORES) bench_train $(ARGS)

test: setup
	@PATH="$$PWD/$(BIN):$$PATH" $(BIN)/pytest $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow
	$(BIN)/clang-format --dry-run --Werror $(wildcard cpp/*.h cpp/*.cpp cpp/*/*.h cpp/*/*.cpp)
	PATH="$$PWD/$(BIN):$$PATH" $(BIN)/snakemake --lint

setup: $(BIN)/.rvkernels

$(BIN)/.environment: envs/setup.sh envs/torch.txt envs/base.txt
	@PYTHON="$(PYTHON)" envs/setup.sh
	@touch $@

$(BIN)/.rvkernels: $(BIN)/.environment $(SOURCES)
	@echo "setup: building rvkernels (C++ kernels and the GDAL reader)"
	@$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps .
	@touch $@

clean:
	rm -rf build .venv
