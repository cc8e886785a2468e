# Every verb of this repository. `make` alone lists them.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
.NOTPARALLEL:
.DEFAULT_GOAL := help

# The environment in which go builds with libllama; an error in it stops the recipe.
with_llama := environment=$$(scripts/llama-env); eval "$$environment";

MODEL ?= SmolLM-135M.Q4_K_M.gguf
ARGS  ?=
BENCH ?=
export BENCH
TAGS  ?=

.PHONY: help deps cuda tools env build run test lint parity equivalence prefetch original abort gpu-check memory load peers replay bench bench-compare check-headers image image-check image-push image-manifest release release-attach pin-update clean

help: ## list the verbs
	@echo 'benchmark-llm: make VERB'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'plain go commands: eval "$$(make env)"'

deps: ## get libllama, and as root the missing Debian packages
	@scripts/preflight
	@scripts/get-llama

cuda: ## deps, with ggml's CUDA back-end and NVIDIA's libraries (0.3 GB), for every build from then on
	@scripts/preflight
	@scripts/get-llama --cuda

tools: # deps, and llama-bench and ggml-rpc-server of the same packages
	@scripts/preflight
	@scripts/get-llama --tools

env: deps ## print the environment for plain go commands
	@scripts/llama-env

build: deps ## build bin/benchmark-llm
	@$(with_llama) go build -trimpath -tags "$(TAGS)" -o bin/benchmark-llm ./cmd/benchmark-llm

run: build ## build, then benchmark the embedded model; ARGS='-p 512 -n 128' is passed on
	@bin/benchmark-llm run -m $(MODEL) --weights synthetic $(ARGS)

test: deps ## every test: with libllama, without cgo, the four variants, the debug build, the scripts
	@scripts/get-llama --tools --cuda-test
	@scripts/check-headers
	@echo '== the four variants build'
	@$(with_llama) go build ./...
	@$(with_llama) go build -tags cuda ./...
	@$(with_llama) go build -tags cpu ./...
	@CGO_ENABLED=0 go build -buildvcs=false ./...
	@echo '== with libllama'
	@$(with_llama) go test -timeout 30m ./...
	@$(with_llama) go test -tags cuda -run CUDA ./bench/llamacpp
	@$(with_llama) go test -tags cpu ./bench/llamacpp
	@scripts/preflight peers
	@$(with_llama) go test -tags parity ./scripts/parity
	@echo '== go-llama.cpp'
	@scripts/with-gollama go test -tags gollama ./cmd/gollama-peer
	@echo '== without cgo'
	@CGO_ENABLED=0 go test -timeout 30m ./...
	@echo '== collecting garbage at every call, pointers checked'
	@$(with_llama) GOEXPERIMENT=cgocheck2 go test -tags llamadebug ./llama/...
	@echo '== scripts'
	@scripts/test/run

lint: deps ## golangci-lint, gofmt, actionlint, shellcheck
	@scripts/preflight lint
	@scripts/lint

proof := $(with_llama) go build -tags parity -o bin/parity ./scripts/parity && bin/parity

parity: tools build ## compare with llama-bench, alternating, on this machine
	@$(proof) $(ARGS)

equivalence: tools build ## compare synthetic weights with files, over architectures
	@$(proof) -equivalence $(ARGS)

prefetch: tools build ## tests with and without a download in the background
	@$(proof) -prefetch $(ARGS)

original: tools build ## compare with the suite that is replaced: SCRIPT=its benchmark.py
	@go build -o bin/original ./scripts/original && bin/original $(ARGS) $(SCRIPT)

abort: deps ## time from an abort to its return, and the longest node of the graph
	@$(proof) -abort $(MODEL) $(ARGS)

gpu-check: tools build ## measure what needs a GPU; ARGS='-rpc HOST:PORT' tries it without one
	@$(with_llama) go build -tags parity -o bin/parity ./scripts/parity
	@go build -o bin/gpu-check ./scripts/gpu-check && bin/gpu-check $(ARGS)

memory: deps build ## resident memory over 200 runs, and beside a plain C program's
	@$(proof) -memory $(ARGS)

load: deps build ## the stream of generated weights by type, loads beside a file's, and their memory
	@$(proof) -load -model llama-7b.Q4_K_M.gguf $(ARGS)

peers: tools build ## compare with llama-bench and go-llama.cpp, in turns
	@scripts/preflight peers
	@scripts/with-gollama go build -tags gollama -o bin/gollama-peer ./cmd/gollama-peer
	@$(proof) -peers $(ARGS)

replay: build ## judge the stop policy by recorded runs: FLEET=FILE
	@bin/benchmark-llm replay $(FLEET) $(ARGS)

bench: ## Go benchmarks: the cost of the binding and of the harness; ARGS=-count=5, BENCH=Decode
	@scripts/bench $(ARGS)

ROUNDS ?= 10

bench-compare: ## the same at two revisions, alternating: OLD=REV, NEW=REV or the working tree
	@scripts/bench --compare '$(OLD)' '$(NEW)' '$(ROUNDS)'

check-headers: deps ## check libllama's headers and symbols against what the binding uses
	@scripts/check-headers

image: ## build the container image with docker or buildah: BACKEND=cuda (default) or cpu
	@scripts/image-build

image-check: build ## as root: build the image without a registry, run it, look into its layers; CHECK=IMAGE checks another one
	@scripts/image-check $(CHECK)

image-push: # push the image: REPOSITORY= TAG= BACKEND=
	@scripts/image-push

image-manifest: # make one name of the pushed images of all architectures: REPOSITORY= TAG=
	@scripts/image-push --manifest

release: ## programs of this architecture with checksums in dist/: RELEASE=TAG, by default what git describes
	@scripts/release

release-attach: # attach dist/ to a release on GitHub, which is made if it is not there: RELEASE=TAG
	@scripts/release --attach

pin-update: ## move the pin of libllama to the newest packages
	@scripts/preflight
	@scripts/pin-update

clean: ## remove what was built and unpacked; downloads stay in the cache
	rm -rf bin dist third_party/llama.cpp/root
