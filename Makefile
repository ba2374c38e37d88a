# One command each. Everything installs itself into .venv (Python >= 3.11 and make are all that is needed).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
DATA   ?= data
LISTEN ?= 127.0.0.1:9000
ROUNDS ?= 100
OPS    ?= 100000
CHUNKS ?= 1000
# Test files that run at the same time: more than cores, since many tests wait for disks, clients and elections.
AT_ONCE ?= 3

.PHONY: run cluster dev test unit check format docs clients quick-clients bench crash million torture torture-model torture-damage torture-power torture-syncs torture-controls forming faults walks sim sim-controls clean help three linear torture-cluster torture-cluster-disks

help:                       ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/'

$(BIN)/staddle: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt $(BIN)/staddle
	$(PIP) install -c constraints.txt -e '.[test,check]'
	@touch $@

run: $(BIN)/staddle         ## install and serve on 127.0.0.1:9000 with data in ./data
	$(BIN)/staddle serve --data $(DATA) --listen $(LISTEN)

cluster: $(BIN)/staddle     ## install and serve a cluster of three machines on 127.0.0.1:9000 to 9002, data in ./data-cluster
	$(BIN)/python -m gateway.cluster.trial --data $(DATA)-cluster --port $(lastword $(subst :, ,$(LISTEN)))

dev: $(VENV)/.test          ## install for development

quick-clients: $(VENV)/.test  ## install the real clients of `make test` that the virtual environment does not have
	$(BIN)/python tests/clients/install.py

clients: $(VENV)/.test      ## install every real client that can be had and let each do its jobs, over http and https
	$(BIN)/python tests/clients/install.py --all
	$(BIN)/python -m pytest -n 2 --dist loadfile -rs tests/clients tests/clients/every

test: quick-clients               ## all tests, and forty seeds of the simulation
	$(BIN)/python -m tests.sim --seeds 40
	$(BIN)/python -m pytest -n $(AT_ONCE) --dist loadfile --no-loadscope-reorder tests

three: quick-clients              ## the boto3 and real-client suites against three machines, requests spread over their gateways
	STADDLE_TEST_THREE=1 $(BIN)/python -m pytest -n 1 tests/s3 tests/clients

unit: $(VENV)/.test         ## the fast tests, under one minute
	$(BIN)/python -m pytest -n 2 -m "not slow and not clients" tests/unit tests/contract tests/spec

check: $(VENV)/.test        ## lint, types, import contracts, docs current
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_tree.py

format: $(VENV)/.test       ## let ruff fix what it can
	$(BIN)/ruff check --fix .

docs: $(VENV)/.test         ## print the pages that come from the code
	$(BIN)/python -m gateway.docs

bench: $(VENV)/.test        ## all benchmarks, each a report on the terminal
	$(BIN)/python -m tests.bench

crash: $(VENV)/.test        ## crash and power loss at every durable step, every kind of fault (long)
	$(BIN)/python -m tests.crash
	$(BIN)/python -m pytest -m slow tests/unit/consensus tests/unit/storage_node

torture: $(VENV)/.test      ## kill -9 under load: make torture ROUNDS=100 SEED=1
	$(BIN)/python -m tests.torture kill --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

torture-model: $(VENV)/.test    ## random operations against a reference model: OPS=100000 SEED=1
	$(BIN)/python -m tests.torture model --operations $(OPS) $(if $(SEED),--seed $(SEED))

torture-damage: $(VENV)/.test   ## damaged chunks, read, found by the scrub and mended: CHUNKS=1000 SEED=1
	$(BIN)/python -m tests.torture damage --chunks $(CHUNKS) $(if $(SEED),--seed $(SEED))

torture-events: SECONDS = 60
torture-events: $(VENV)/.test   ## events told to a listener that fails, while processes are killed: SECONDS=60 SEED=1
	$(BIN)/python -m tests.torture events --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

torture-power: ROUNDS = 30
torture-power: $(VENV)/.test    ## power cuts, then torn writes, under load (needs a C compiler): ROUNDS=30 SEED=1
	$(BIN)/python -m tests.torture power --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

torture-syncs: ROUNDS = 20
torture-syncs: $(VENV)/.test    ## syncs that fail, and power cuts after them (needs a C compiler): ROUNDS=20 SEED=1
	$(BIN)/python -m tests.torture failed-syncs --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

walks: WALKS = 5000
walks: FIRST = 0
walks: $(VENV)/.test        ## random interleavings of all that can happen to a chunk's copies: WALKS=5000 FIRST=0
	STADDLE_WALKS=$(WALKS) STADDLE_FIRST_WALK=$(FIRST) $(BIN)/python -m pytest -q --timeout=0 -k as_designed \
		tests/unit/storage_node/test_interleavings.py tests/unit/storage_node/test_pulling.py

faults: ROUNDS = 10
faults: $(VENV)/.test       ## disks that fill up or turn read-only under load (needs root): make faults ROUNDS=10 SEED=1
	ROUNDS=$(ROUNDS) $(if $(SEED),SEED=$(SEED)) $(BIN)/python -m tests.faults

linear: RUNS = 10
linear: SECONDS = 60
linear: $(VENV)/.test       ## linearizability through three gateways: RUNS=10 SECONDS=60 [PARTITIONS=1] [KILLS=1] [PAUSES=1] [CLOCKS=1] [WIPES=1] [MEMBERS=1]
	$(BIN)/python -m tests.linear --runs $(RUNS) --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) \
		$(if $(PARTITIONS),--partitions) $(if $(KILLS),--kills) $(if $(PAUSES),--pauses) $(if $(CLOCKS),--clocks) \
		$(if $(WIPES),--wipes) $(if $(MEMBERS),--machines 4 --members)

torture-cluster: KIND = node
torture-cluster: $(VENV)/.test  ## machines of three killed under load: ROUNDS=100 KIND=node|leader|all|power SEED=1
	$(BIN)/python -m tests.torture cluster --rounds $(ROUNDS) --kind $(KIND) $(if $(SEED),--seed $(SEED))

torture-cluster-disks: $(VENV)/.test  ## a wiped disk and rot on three machines: CHUNKS=1000 SEED=1
	$(BIN)/python -m tests.torture cluster-disks --fault wiped --count $(CHUNKS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.torture cluster-disks --fault rotten --count $(CHUNKS) $(if $(SEED),--seed $(SEED))

forming: ROUNDS = 20
forming: $(VENV)/.test      ## machines killed and wiped while they form a cluster: make forming ROUNDS=20 SEED=1
	$(BIN)/python -m tests.cluster.forming --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

torture-controls: $(VENV)/.test  ## products that break a rule on purpose, each to be caught: SEED=1
	$(BIN)/python -m tests.torture controls $(if $(SEED),--seed $(SEED))

sim-controls: $(VENV)/.test  ## the simulation of products that break a rule on purpose, each to be caught
	$(BIN)/python -m tests.sim --controls

sim: SECONDS = 60
sim: $(VENV)/.test          ## three machines in simulated time: make sim SEED=7, or SEEDS=1000 FIRST=1, SECONDS=60
	$(BIN)/python -m tests.sim --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST),--first $(FIRST))

clean:                      ## remove what was installed and cached, never data
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist build
