# `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Where goroutines share state. The race detector is slow and needs gcc, so it
# runs on these alone.
RACE_PKGS ?= ./internal/store ./internal/ledger ./internal/signer ./internal/campaign \
	./internal/update ./internal/httpd ./internal/server ./internal/agent

COMMANDS := $(notdir $(wildcard cmd/*))
TOOL     := go tool -modfile=tools/go.mod

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## a fleet takes a signed, approved, staged update on this machine (ARGS="--keep")
	go run ./cmd/writ demo $(ARGS)

.PHONY: test
test: ## everything, on SQLite and PostgreSQL; installs what is missing (Debian, root)
	RACE_PKGS="$(RACE_PKGS)" scripts/test

.PHONY: check
check: ## formatting, vet, staticcheck and the linters
	@unformatted="$$($(TOOL) gofumpt -l $(wildcard cmd internal verify client apitypes))" || exit 1; \
	if [ -n "$$unformatted" ]; then \
		echo "not formatted; run '$(TOOL) gofumpt -w' on:"; echo "$$unformatted"; exit 1; \
	fi
	go vet ./...
	$(TOOL) golangci-lint run ./...

.PHONY: bench
bench: ## throughput, latency and server CPU of each operation (ARGS=...)
	go run ./cmd/writ bench $(ARGS)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (10s)
	scripts/fuzz

.PHONY: build
build: ## static binaries in bin/
	@mkdir -p bin
	@for c in $(COMMANDS); do \
		echo "bin/$$c"; CGO_ENABLED=0 go build -trimpath -o bin/$$c ./cmd/$$c || exit 1; \
	done

.PHONY: clean
clean: ## remove bin/ and the test tools in .cache/
	rm -rf bin .cache
