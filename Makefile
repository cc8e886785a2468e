# Every verb of this repository. `make` alone lists them: a comment after ## is a verb's help, a line ##@ is a heading.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
.NOTPARALLEL:
.DEFAULT_GOAL := help

# The environment in which go builds with libllama. An error in it stops the recipe.
with_llama := environment=$$(scripts/llama-env); eval "$$environment";

MODEL ?= SmolLM-135M.Q4_K_M.gguf
ARGS  ?=
BENCH ?=
export BENCH
TAGS  ?=

.PHONY: help run build test lint deps cuda tools env check-headers pin-update clean parity equivalence peers original prefetch abort memory memory-prediction load honesty verdicts disturb estimate-check limits-check gpu-check replay bench bench-compare image image-check image-push image-manifest release release-attach man picture

help: # list the verbs
	@echo "make VERB; ARGS='…' adds options to the program that a verb runs"
	@awk -F ':.*## ' '/^##@ / { print ""; print substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'For plain go commands: eval "$$(make env)"'

##@ Run and develop

run: build ## build, then benchmark the smallest default model; ARGS='-p 512 -n 128'
	@bin/benchmark-llm run -m $(MODEL) --weights synthetic $(ARGS)

build: deps ## build bin/benchmark-llm
	@$(with_llama) go build -trimpath -tags "$(TAGS)" -o bin/benchmark-llm ./cmd/benchmark-llm

test: deps ## run all tests: with and without the library, all build variants, the scripts
	@scripts/preflight test
	@scripts/get-llama --tools --cuda-test --vulkan-test
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
	@echo '== garbage collection at every call, pointers checked'
	@$(with_llama) GOEXPERIMENT=cgocheck2 go test -tags llamadebug ./llama/...
	@echo '== scripts'
	@scripts/test/run

lint: deps ## run golangci-lint, gofmt, actionlint and shellcheck
	@scripts/preflight lint
	@scripts/lint

clean: ## delete everything that was built or unpacked; downloads stay in the cache
	rm -rf bin dist third_party/llama.cpp/root

##@ The library

deps: ## get libllama; as root, also install missing Debian packages
	@scripts/preflight
	@scripts/get-llama

cuda: ## get libllama with CUDA (0.3 GB more); all later builds use it
	@scripts/preflight
	@scripts/get-llama --cuda

tools: ## get libllama with llama-bench and ggml-rpc-server
	@scripts/preflight
	@scripts/get-llama --tools

env: deps ## print the environment for plain go commands
	@scripts/llama-env

check-headers: deps ## check that libllama's headers and symbols fit the binding
	@scripts/check-headers

pin-update: ## pin the newest packages of libllama
	@scripts/preflight
	@scripts/pin-update

##@ Proofs and measurements

proof := $(with_llama) go build -tags parity -o bin/parity ./scripts/parity && bin/parity

parity: tools build ## compare the speed with llama-bench's, alternating
	@$(proof) $(ARGS)

equivalence: tools build ## compare the speed of synthetic weights with that of model files
	@$(proof) -equivalence $(ARGS)

peers: tools build ## compare the speed with llama-bench's and go-llama.cpp's, alternating
	@scripts/preflight peers
	@scripts/with-gollama go build -tags gollama -o bin/gollama-peer ./cmd/gollama-peer
	@$(proof) -peers $(ARGS)

original: tools build ## compare with the suite that this program replaces: SCRIPT=FILE, its benchmark.py
	@go build -o bin/original ./scripts/original && bin/original $(ARGS) $(SCRIPT)

prefetch: tools build ## measure tests with and without a download in the background
	@$(proof) -prefetch $(ARGS)

abort: deps ## measure the time from an abort to its return
	@$(proof) -abort $(MODEL) $(ARGS)

memory: deps build ## measure the memory over 200 runs, and compare it with a plain C program's
	@$(proof) -memory $(ARGS)

memory-prediction: deps ## compare the memory that plan predicts with the library's report, for all default models and lengths
	@$(with_llama) go run ./scripts/memory $(ARGS)

load: deps build ## measure how fast synthetic weights load, and compare with a model file
	@$(proof) -load -model llama-7b.Q4_K_M.gguf $(ARGS)

honesty: build ## run tests twice by turns: how often are the intervals right? ARGS='-until 5%,2%,1%'
	@go build -o bin/honesty ./scripts/honesty && bin/honesty $(ARGS)

verdicts: build ## measure how often verdicts of compare are right; ARGS='-from FILE' judges recorded runs
	@go build -o bin/verdicts ./scripts/verdicts && bin/verdicts $(ARGS)

disturb: build ## measure whether verdicts name what slows tests down, on a quiet machine
	@go build -o bin/disturb ./scripts/disturb && bin/disturb $(ARGS)

limits-check: build ## measure how far limits repeat and agree with another program, on a quiet machine
	@$(CC) -O3 -march=native -ffast-math -fopenmp -o bin/stream scripts/stream.c
	@go build -o bin/limits ./scripts/limits && bin/limits $(ARGS)

estimate-check: build ## compare estimates with measurements, on a quiet machine; ARGS='-fleet FILE' checks the idea on a fleet's results
	@go build -o bin/estimates ./scripts/estimates && bin/estimates $(ARGS)

gpu-check: tools build ## measure a GPU; ARGS='-rpc HOST:PORT' uses an RPC server in its place
	@$(with_llama) go build -tags parity -o bin/parity ./scripts/parity
	@go build -o bin/gpu-check ./scripts/gpu-check && bin/gpu-check $(ARGS)

replay: build ## judge the stop policy by recorded runs: FLEET=FILE
	@bin/benchmark-llm replay $(FLEET) $(ARGS)

bench: ## run the Go benchmarks: BENCH=NAME selects, ARGS=-count=5 repeats
	@scripts/bench $(ARGS)

ROUNDS ?= 10

bench-compare: ## run the Go benchmarks at two revisions: OLD=REVISION, NEW=REVISION or the working tree
	@scripts/bench --compare '$(OLD)' '$(NEW)' '$(ROUNDS)'

##@ Container images

image: ## build the image with docker or buildah: BACKEND=cuda (default), cpu, vulkan or hip
	@scripts/image-build

image-check: build ## as root, without a registry: build the image, or take CHECK=IMAGE, and test it
	@scripts/image-check $(CHECK)

image-push: ## push the image: REPOSITORY=NAME TAG=NAME, BACKEND=cuda, cpu, vulkan or hip
	@scripts/image-push

image-manifest: ## join the pushed images of all architectures under one name: REPOSITORY=NAME TAG=NAME
	@scripts/image-push --manifest

##@ Releases

release: ## build the programs of this architecture and the manual pages in dist/: RELEASE=TAG
	@scripts/release

release-attach: ## publish dist/ as a release on GitHub: RELEASE=TAG
	@scripts/release --attach

picture: build ## draw real commands for README.md, on a quiet machine with tmux
	@go run ./scripts/picture $(ARGS)

man: ## write the manual pages to dist/man
	@scripts/man dist/man
