# Causeway: `make demo` shows it, `make test` tests it; both install what they need first. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

# rustup's installer puts cargo here, and the shell that ran it may not know yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Under sudo, root has no Rust of its own as a rule: use that of the user who called.
ifneq ($(SUDO_USER),)
ifeq ($(wildcard $(HOME)/.cargo/bin/cargo),)
sudo_home := $(shell getent passwd '$(SUDO_USER)' | cut -d: -f6)
ifneq ($(wildcard $(sudo_home)/.cargo/bin/cargo),)
export CARGO_HOME ?= $(sudo_home)/.cargo
export RUSTUP_HOME ?= $(sudo_home)/.rustup
export PATH := $(sudo_home)/.cargo/bin:$(PATH)
endif
endif
endif

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/debug
LAB := $(BIN)/causeway-lab
TOPOLOGY ?= two-racks
TOPOLOGY_FILE := integration/topologies/$(TOPOLOGY)/$(TOPOLOGY).clab.yml

.PHONY: help deps build test unit lint demo lab lab-down bench bench-quick bench-fib bench-build clean root

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

root:
	@if [ "$$(id -u)" -ne 0 ]; then
		echo "This builds network namespaces and needs root: sudo make $(MAKECMDGOALS)" >&2
		exit 1
	fi

deps: ## Install the Debian packages and crates that are missing
	@integration/install-deps

build: deps ## Build every binary
	@$(CARGO) build --workspace --locked

test: root deps ## Everything .ci/run runs: style, rules, unit tests, scenarios (needs root)
	@$(MAKE) --no-print-directory lint
	$(CARGO) build --workspace --locked
	RUST_BACKTRACE=1 $(CARGO) test --workspace --locked --no-fail-fast

lint: deps ## Formatting, clippy, and cargo-deny where it is installed
	@$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	if command -v cargo-deny >/dev/null; then
		$(CARGO) deny check
	else
		echo "cargo-deny is not installed: licences and sources are checked by the tests, advisories are not (cargo install cargo-deny --locked)"
	fi

unit: deps ## Tests that need neither root nor other daemons
	@$(CARGO) test --workspace --locked --lib --bins

demo: root build ## Two racks, eight pods, real routers: the tour (needs root)
	@$(LAB) demo $(TOPOLOGY_FILE)

lab: root build ## Bring a topology up and leave it up: make lab TOPOLOGY=two-racks (needs root)
	@$(LAB) up --pods 2 $(TOPOLOGY_FILE)

lab-down: root build ## Take it down again (needs root)
	@$(LAB) down $(TOPOLOGY_FILE)

bench-build: root deps
	@$(CARGO) build --release --locked -p causeway-bgpd -p causeway-route-reflector -p causeway-fib-sync -p causeway-bench

BENCH = $(TARGET)/release/causeway-bench
RUNS := $(TARGET)/bench

bench: bench-build ## Every benchmark beside BIRD, FRR and GoBGP, about two hours; fills docs/benchmarks.md (needs root)
	@mkdir -p $(RUNS)
	failed=0
	$(BENCH) run --patient --limit 60 --daemons relay,causeway,bird,frr,gobgp --once gobgp --json $(RUNS)/one-core.json || failed=1
	$(BENCH) run --patient --limit 60 --daemons causeway,bird,frr,gobgp --once gobgp --cores 2 \
		--scenario "A,A1,B,B',C,C',E,S1000" --json $(RUNS)/two-cores.json || failed=1
	$(BENCH) document --json $(RUNS)/one-core.json --json $(RUNS)/two-cores.json docs/benchmarks.md
	exit $$failed

bench-quick: bench-build ## Three minutes: smaller benchmarks beside BIRD, printed only (needs root)
	@$(BENCH) run --scale 0.2 --runs 2 --limit 10 --daemons relay,causeway,bird \
		--scenario "A,A1,B,C,D-warm,E-warm"
	$(BENCH) run --scale 0.2 --runs 1 --limit 10 --daemons relay,causeway,bird --scenario "E-cold,S1000,churn-100,random"

bench-fib: bench-build ## Routes into the kernel beside a bare loop, BIRD and FRR, eight minutes; QUICK=1 one (needs root)
	@mkdir -p $(RUNS)
	nice -n -10 $(BENCH) fib $(if $(QUICK),--quick,--document docs/benchmarks.md) --json $(RUNS)/fib.json

clean: ## Remove what was built
	@$(CARGO) clean
