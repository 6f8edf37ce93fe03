# Two commands for a stranger: `make demo` and `make test`. Each makes `.venv` and installs into it when needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SEEDS  ?= 1 2 3
REAL   ?= $(wildcard ../shared/data/decam)
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

.PHONY: demo test check accept planted regress baseline bench lint install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@echo "installing into $(VENV) (about a minute; not part of the times below)"
	@start=$$(date +%s); \
	 $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])' \
	 && $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' \
	 && touch $@ && echo "installed in $$(( $$(date +%s) - start )) s"

demo: install
	@rm -rf runs/demo
	@start=$$(date +%s); $(BIN)/alert-twin run scenarios/first_light.toml --out runs/demo \
	 && $(BIN)/alert-twin report runs/demo && echo "demo took $$(( $$(date +%s) - start )) s beside the install"

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Files of tests are shared out among processes: what one file made is made once.
check: lint
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

test: install check

accept: install
	@rm -rf runs/accept
	$(BIN)/alert-twin accept --seeds $(SEEDS) --out runs/accept $(if $(REAL),--real $(REAL))
	@$(MAKE) --no-print-directory planted

# Are planted changes found, and changes without effect called nothing? From the first seed given: tests/planted. Ten
# repeats of twelve nights for each change take hours; fewer nights with NIGHTS=60.
NIGHTS ?= 120
planted: install
	@rm -rf runs/planted
	$(BIN)/python tests/planted/find.py --first $(firstword $(SEEDS))000 --seeds $(NIGHTS) --out runs/planted
	$(BIN)/python tests/planted/find.py --first $(firstword $(SEEDS))000 --seeds 4 --repeats 1 --null --out runs/planted
	$(BIN)/python -m tests.reports.validation

# Has the code as it lies here become worse than the recorded baseline? Prints the verdict, and what it would have found.
regress: install
	@rm -rf runs/regress
	@start=$$(date +%s); $(BIN)/alert-twin compare baseline:regression . --scenario scenarios/regression.toml --power \
	 --out runs/regress; code=$$?; echo "regress took $$(( $$(date +%s) - start )) s beside the install"; exit $$code

# Record that baseline anew, from committed code.
baseline: install
	@rm -rf scenarios/baselines/regression
	$(BIN)/alert-twin baseline scenarios/regression.toml --out scenarios/baselines/regression

bench: install
	$(BIN)/pytest -m bench --benchmark-sort=name

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
