# Each target works on a fresh clone: it makes .venv first, and again only when what it is made from has changed.
# Options: SEED=n (demo), TORCH=cpu|cuda, PYTHON=python3.12, VENV=folder.
VENV = .venv
BIN = $(VENV)/bin
SEED = 0
setup = MAKE_VERSION='$(MAKE_VERSION)' VENV='$(VENV)' TORCH='$(TORCH)' PYTHON='$(PYTHON)' sh .ci/setup.sh

.PHONY: demo run chat test check bench pocket loras clean setup-run setup-dev
demo: setup-run           ## one conversation, non-interactive; its pictures land in demo/
	@$(BIN)/atelier demo --seed $(SEED)
run: setup-run            ## the service: a page to chat on at http://127.0.0.1:8765/
	@$(BIN)/atelier run
chat: setup-run           ## talk to it on this terminal
	@$(BIN)/atelier chat
test: setup-dev           ## every test
	@$(BIN)/python -m pytest -q
check: setup-dev          ## lint, types, who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports
bench: setup-dev          ## the README's figures: a minute, some minutes, half an hour
	@$(BIN)/python -m benchmarks.speed
	@$(BIN)/python -m benchmarks.quality
	@$(BIN)/python -m benchmarks.heldout --only owl teapot
pocket: setup-dev         ## train the embedded base anew (wants a CUDA GPU)
	@$(BIN)/python -m engine.pocket
loras: setup-run          ## train the shipped LoRAs anew
	@$(BIN)/python -m engine.pocket.starters
clean:                    ## away with the environment and what the demo left
	rm -rf $(VENV) demo

setup-run:
	@$(setup) run
setup-dev:
	@$(setup) dev
