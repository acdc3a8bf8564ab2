# Two commands: `make demo` and `make test`. Each does all of its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 120
CODE := src tests tools plugins benchmarks examples
VLLM := $(or $(PRESAFE_VLLM),.venv-vllm)
HOME_ENV := .venv-home
PEFT_ENV := .venv-peft
LLAMA := 0.3.36
READY := $(VENV)/.ready
export HF_HUB_DISABLE_TELEMETRY := 1
# Installed as source: compiled where it is first imported, and kept, also where the environment says not to.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test vllm test-vllm test-engine test-home faults bench architectures check docs dist format smolthink qwenthink clean

demo: $(READY)
	$(BIN)/presafe demo --out runs/demo

test: $(READY)
	$(MAKE) --no-print-directory -j2 check dist  # side by side: mypy alone takes 40 s
	$(BIN)/python -c 'from presafe.models.weights import minilm_folder, smollm2_folder; smollm2_folder(); minilm_folder()'
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

vllm:
	$(PYTHON) plugins/vllm/environment.py $(VLLM)

# The plug-in in one server; what takes a server for each test is in test-engine.
test-vllm: $(READY)
	$(PYTHON) plugins/vllm/environment.py $(VLLM) --if-offered
	$(BIN)/python -c 'from presafe.models.weights import smollm2_folder; smollm2_folder()'
	test ! -x $(VLLM)/bin/python || $(VLLM)/bin/python -m pytest plugins/vllm/tests
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 PRESAFE_VLLM=$(abspath $(VLLM)) $(BIN)/python -m pytest plugins/vllm/live/test_served.py

test-engine: $(READY)
	$(PYTHON) plugins/vllm/environment.py $(VLLM)
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 PRESAFE_VLLM=$(abspath $(VLLM)) $(BIN)/python -m pytest plugins/vllm/live/test_engine.py plugins/vllm/live/test_guides.py plugins/vllm/live/test_kills.py

test-home: $(HOME_ENV)/.ready $(PEFT_ENV)/.ready
	$(HOME_ENV)/bin/python -c 'import inspect_evals.metadata, llamafactory, tensorboard, trackio, wandb'  # or their tests would be skipped
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 $(HOME_ENV)/bin/python -m pytest tests/unit/alignment/test_trackers.py tests/unit/alignment/test_formats.py tests/docs/test_register.py
	$(BIN)/python -c 'from presafe.models.weights import minilm_folder, smollm2_folder; smollm2_folder(); minilm_folder()'
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 PRESAFE_PEFT_PYTHON=$(abspath $(PEFT_ENV))/bin/python PRESAFE_GGUF_CONVERTER=$(abspath $(HOME_ENV))/llama_cpp_python-$(LLAMA)/vendor/llama.cpp/convert_hf_to_gguf.py $(HOME_ENV)/bin/python -m pytest tests/integration/test_card.py tests/integration/test_gguf_converter.py

faults: $(READY)
	$(BIN)/python -c 'from presafe.models.weights import smollm2_folder; smollm2_folder()'
	PYTHONPATH=tests:tests/support $(BIN)/python -m faults --minutes $(MINUTES) --out runs/faults

bench: $(READY)
	$(BIN)/python -c 'from presafe.models.weights import minilm_folder, smollm2_folder; smollm2_folder(); minilm_folder()'
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 $(BIN)/python benchmarks/bench.py

architectures: $(READY)
	PYTHONPATH=tests:tests/support $(BIN)/python tests/support/architecture_runs.py --table docs/reference/architectures.md

check: $(READY)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

dist: $(READY)
	rm -rf build dist
	$(BIN)/python -m pip wheel --disable-pip-version-check -q --no-deps --wheel-dir dist .

format: $(READY)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

smolthink: $(READY)
	$(BIN)/python tools/smolthink/build.py --out src/presafe/models/smolthink/weights

qwenthink: $(READY)
	PYTHONPATH=tools $(BIN)/python -m qwenthink.train --seed 0 --steps 24 --out runs/qwenthink/0

clean:
	rm -rf $(VENV) .venv-vllm $(HOME_ENV) $(PEFT_ENV) build dist site src/*.egg-info

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "presafe needs Python 3.11 or later; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --no-compile -q -c constraints.txt -e '.[dev]'
	touch $(READY)

# A layer on $(VENV) with the tools that read what this package writes; what they need of other versions stays in it.
# llama.cpp's converter is no package: it lies in the source of this one, which is not built.
$(HOME_ENV)/.ready: $(READY) tests/home.txt
	rm -rf $(HOME_ENV)
	$(BIN)/python -m venv $(HOME_ENV)
	$(HOME_ENV)/bin/python -c 'import pathlib, sys, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "layer.pth").write_text(f"import site; site.addsitedir({sys.argv[1]!r})\n")' "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	$(HOME_ENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off --no-compile -q -r tests/home.txt
	$(HOME_ENV)/bin/python -m pip install --disable-pip-version-check --no-compile -q --no-deps llamafactory==0.9.5  # its reader needs none
	$(HOME_ENV)/bin/python -m pip download --disable-pip-version-check -q --no-deps --no-binary llama-cpp-python --dest $(HOME_ENV) llama-cpp-python==$(LLAMA)
	tar -xzf $(HOME_ENV)/llama_cpp_python-$(LLAMA).tar.gz -C $(HOME_ENV) $(addprefix llama_cpp_python-$(LLAMA)/vendor/llama.cpp/,convert_hf_to_gguf.py conversion gguf-py)
	touch $(HOME_ENV)/.ready

# Where an adapter's card is followed: the libraries that its lines import, and no presafe.
$(PEFT_ENV)/.ready: constraints.txt
	rm -rf $(PEFT_ENV)
	$(PYTHON) -m venv $(PEFT_ENV)
	$(PEFT_ENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off --no-compile -q -c constraints.txt torch transformers peft
	touch $(PEFT_ENV)/.ready
