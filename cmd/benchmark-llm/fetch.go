package main

import (
	"log/slog"
	"os"

	"github.com/sparecores/benchmark-llm/bench/fetch"
)

// newClient asks servers and fetches files. A brisk client gives up early on hosts
// that cannot be reached.
func newClient(brisk bool) *fetch.Client {
	return &fetch.Client{Token: os.Getenv("HF_TOKEN"), UserAgent: "benchmark-llm/" + version, Log: slog.Default(), Brisk: brisk}
}
