# make study   set up what is missing, the study's frameworks among it, run the study, print where the report is
# make setup   that set-up alone
# make bench-train    the same for training steps on synthetic batches; times want a machine that does nothing else
# make bench   set up the libraries that the kernels are compared with, compare (rvk bench; ARGS="--quick --only nms")
# make test    set up what is missing, run the tests
# make test-conda    the small study with --use-conda, against a channel made of what this machine has
# make test-tables    the small study on this machine, with --use-conda and through SLURM: all tables the same to the last digit
# make test-slurm    the tests of the SLURM profile, on a SLURM of virtual nodes: root, and Debian's slurm-wlm and munge
# make containers    what an image with all conda environments is built from, into build/containers; needs conda
# make docs    write the tables of config/README.md, the graph of README.md and the tables of results/published anew
# make lint    what .ci/run checks besides the tests
# make sanitize    the kernels' tests in builds with AddressSanitizer and ThreadSanitizer, then fuzzing for FUZZ_SECONDS=60,
#                  with new input each time, or always the same: FUZZ_SEED=1
#
# CONFIG=config/eurosat.yaml chooses another study, CORES=1 uses fewer cores, PROFILE=slurm a cluster instead of them, ARGS="-n"
# goes to snakemake or pytest.

PYTHON ?= python3
CONFIG ?= config/config.yaml
CORES ?= all
PROFILE ?=
ARGS ?=
FUZZ_SECONDS ?= 60
BIN := .venv/bin
WHERE := $(if $(PROFILE),--profile workflow/profiles/$(PROFILE),--cores $(CORES))
# Files of tests are dealt out to processes whole and in this order: those that take longest come first.
FIRST := tests/workflow tests/frameworks
TESTS := $(FIRST) $(filter-out $(FIRST) tests/conda tests/slurm tests/conftest.py,$(wildcard tests/[a-z]*))
# What concerns frameworks, and so runs again in the environment of one that has its own.
OWN_TESTS := tests/frameworks tests/test_train.py tests/test_export.py

.PHONY: study bench bench-train test test-conda test-slurm test-tables containers docs lint sanitize setup clean

study: setup
	@$(BIN)/rvk check $(CONFIG)
	@PATH="$$PWD/$(BIN):$$PATH" workflow/run.sh --configfile $(CONFIG) $(WHERE) $(ARGS)
	@$(BIN)/rvk check --report $(CONFIG)

bench:
	@PYTHON="$(PYTHON)" envs/setup.sh bench
	@$(BIN)/rvk bench $(ARGS)

bench-train: setup
	@$(BIN)/rvk check $(CONFIG)
	@PATH="$$PWD/$(BIN):$$PATH" workflow/run.sh --configfile $(CONFIG) $(WHERE) bench_train $(ARGS)

test: setup
	@PATH="$$PWD/$(BIN):$$PATH" $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --benchmark-disable --no-loadscope-reorder --ignore=tests/conda --ignore=tests/slurm $(or $(ARGS),$(TESTS))
ifeq ($(ARGS),)
	@for own in .venv-*/; do \
	  [ ! -x "$$own/bin/rvk" ] || { name=$${own#.venv-}; $$own/bin/pytest $(OWN_TESTS) -k "$${name%/}"; } || exit 1; \
	done
endif

test-conda: setup
	@$(BIN)/pytest tests/conda $(ARGS)

test-slurm: setup
	@PATH="$$PWD/$(BIN):$$PATH" $(BIN)/pytest tests/slurm $(ARGS)

test-tables: setup
	@PATH="$$PWD/$(BIN):$$PATH" $(BIN)/pytest tests/conda tests/slurm -k tables $(ARGS)

containers: setup
	@$(BIN)/python workflow/containers.py build/containers

docs: setup
	@$(BIN)/python workflow/docs.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow
	$(BIN)/clang-format --dry-run --Werror $(wildcard cpp/*.h cpp/*.cpp cpp/*/*.h cpp/*/*.cpp)
	PATH="$$PWD/$(BIN):$$PATH" $(BIN)/snakemake --lint
	$(BIN)/python workflow/docs.py --check

sanitize: setup
	@tests/sanitize/run.sh tsan
	@tests/sanitize/run.sh asan
	@tests/sanitize/run.sh asan .venv/bin/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED))

setup:
	@PYTHON="$(PYTHON)" envs/setup.sh $(CONFIG)

clean:
	rm -rf build .venv .venv-* .python[0-9]*
