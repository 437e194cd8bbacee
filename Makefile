# `make reproduce` and `make test` need nothing but Python 3.11-3.13 and make; `make help` lists the rest.
# Works with the make 3.81 that macOS ships.

VENV      ?= .venv
PROFILE   ?= mini
SAMPLES   ?=
RECORD    ?=
ONLY      ?=
JOBS      ?=
PYTHON    ?=
BIN       := $(VENV)/bin
BUILD     := $(or $(PVLIB_BUILD),build)
INSTALLED := $(VENV)/.installed
PIP       := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install reproduce test lab serve clean distclean

help:
	@echo "make reproduce               the study: tables, figures and an HTML report, computed from audio"
	@echo "     PROFILE=mini|paper      which configuration and weights      (mini)"
	@echo "     SAMPLES=40              utterances of the test set           (the profile's own)"
	@echo "     ONLY=\"06 08\"            these notebooks alone"
	@echo "     JOBS=1                  processes that share the synthesis   (2 on two or more cores without a GPU)"
	@echo "     RECORD=1                refresh the committed rows, figures and notebooks"
	@echo "make test                    lint, format check and tests"
	@echo "make lab                     the notebooks in JupyterLab"
	@echo "make serve                   the page: clone a voice in the browser"
	@echo "make install                 only $(VENV) and the packages (the others do this by themselves)"
	@echo "make clean                   delete working rows and reports, keep corpus and training state"
	@echo "make distclean               delete $(VENV) and everything under $(BUILD)"
	@echo "PYTHON=/path/to/python3.12   choose the interpreter that makes $(VENV)"

reproduce: $(INSTALLED)
	@$(BIN)/pvlib reproduce --profile $(PROFILE) $(if $(SAMPLES),--samples $(SAMPLES)) \
		$(if $(ONLY),--only $(ONLY)) $(if $(JOBS),--jobs $(JOBS)) $(if $(filter-out 0 no false,$(RECORD)),--record)

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest -q -n 2 --dist loadfile

lab: $(INSTALLED)
	@$(BIN)/jupyter lab notebooks

serve: $(INSTALLED)
	@$(BIN)/pvlib serve --profile $(PROFILE)

install: $(INSTALLED)

# pip comes last into a virtual environment: where it is missing, making it broke off
$(BIN)/pip:
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
		if "$$python" -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info < (3, 14))' 2>/dev/null; then \
			echo "Making $(VENV) with $$("$$python" --version) ($$(command -v "$$python"))"; \
			"$$python" -m venv $(VENV) && exit 0; \
			echo "$$python could not make a virtual environment (on Debian and Ubuntu: apt install python3-venv)" >&2; \
			exit 1; \
		fi; \
	done; \
	echo "No Python from 3.11.4 to 3.13 found: '$(or $(PYTHON),python3)' is $$($(or $(PYTHON),python3) --version 2>&1 | head -1)." >&2; \
	echo "Install one (python.org, your package manager, pyenv, conda) and run again," >&2; \
	echo "or name it: make <target> PYTHON=/path/to/python3.12" >&2; \
	exit 1

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing into $(VENV) (some minutes; 7 GB on Linux with its CUDA libraries, 3 GB elsewhere)"
	@echo "  1/3 torch and torchaudio"
	@$(PIP) torch torchaudio
	@echo "  2/3 pvlib and its other dependencies"
	@$(PIP) --editable '.[world,dev]'
	@echo "  3/3 resemblyzer (without dependencies, so that no compiler is needed; see pyproject.toml)"
	@$(PIP) --no-deps resemblyzer
	@touch $@

clean:
	rm -rf "$(BUILD)/results" "$(BUILD)/report" .pytest_cache .ruff_cache
	find pvlib tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf "$(VENV)" "$(BUILD)" *.egg-info
