// Command imagecheck checks a container image and the output of its program, for
// scripts/image-check.
//
//	imagecheck layers LAYOUT BACKEND       check the sizes and files of the layers of an OCI layout
//	imagecheck records STDOUT              check the records of a run
//	imagecheck same STDOUT STDOUT          check that the records of two runs differ only in measured values
//	imagecheck start EVENTS NANOSECONDS    print the time from a Unix time to the first test, without the load
package main

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("imagecheck: error: ")
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("the command is missing: layers, records, same or start")
	}
	switch command, args := args[0], args[1:]; {
	case command == "layers" && len(args) == 2:
		return checkLayers(os.Stdout, args[0], args[1])
	case command == "records" && len(args) == 1:
		records, err := recordsOf(args[0])
		for _, r := range records {
			fmt.Printf("%s %v: %.1f t/s, %s, %s, %s\n", r.ModelFilename, r.Test(), r.AvgTS, r.Backends, r.Ext.CPUVariant, r.CPUInfo)
		}
		return err
	case command == "same" && len(args) == 2:
		return same(args[0], args[1])
	case command == "start" && len(args) == 2:
		return start(args[0], args[1])
	default:
		return fmt.Errorf("unknown command %s with %d arguments", command, len(args))
	}
}

// recordsOf reads the records in a file with the stdout of a run. It is as strict
// as the fleet's reader: the file must have at least one record and nothing else,
// not even a blank line.
func recordsOf(path string) ([]result.Record, error) {
	stdout, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	records, err := report.ReadRecords(bytes.NewReader(stdout))
	if err != nil {
		return records, fmt.Errorf("stdout: %w", err)
	}
	switch lines := bytes.Count(stdout, []byte("\n")); {
	case len(records) == 0:
		return nil, errors.New("stdout has no record")
	case stdout[len(stdout)-1] != '\n', lines != len(records):
		return records, fmt.Errorf("stdout has %d lines and %d records", lines, len(records))
	}
	for _, r := range records {
		if len(r.SamplesNs) == 0 || r.AvgTS <= 0 {
			return records, fmt.Errorf("%s %v: the record has no measurement", r.ModelFilename, r.Test())
		}
	}
	return records, nil
}

// same fails if the records of two runs differ in values that are not measured:
// the tests, the settings, the devices, the CPU variant, the library's release.
func same(a, b string) error {
	first, err := recordsOf(a)
	if err != nil {
		return err
	}
	second, err := recordsOf(b)
	if err != nil {
		return err
	}
	for _, records := range [][]result.Record{first, second} {
		for i := range records {
			r := &records[i]
			r.TestTime, r.AvgNs, r.StddevNs, r.AvgTS, r.StddevTS, r.SamplesNs, r.SamplesTS = "", 0, 0, 0, 0, nil, nil
			// The versions of the library come from packages in the image, and from the pin outside.
			r.Ext = result.Ext{Schema: r.Ext.Schema, Weights: r.Ext.Weights, Seed: r.Ext.Seed, CPUVariant: r.Ext.CPUVariant}
		}
	}
	if diff := cmp.Diff(first, second); diff != "" {
		return fmt.Errorf("the records differ (-first +second):\n%s", diff)
	}
	return nil
}

// start prints the time from the start of a run, in Unix nanoseconds, to its first
// test, without the load of the model.
func start(events, nanoseconds string) error {
	n, err := strconv.ParseInt(nanoseconds, 10, 64)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(events)
	if err != nil {
		return err
	}
	var load time.Duration
	for line := range bytes.Lines(text) {
		var e bench.Stamped
		if err := e.UnmarshalLine(line); err != nil {
			return err
		}
		switch event := e.Event.(type) {
		case bench.LoadDone:
			load = event.Elapsed
		case bench.TestStarted:
			took := e.At.Sub(time.Unix(0, n)) - load
			fmt.Printf("start to first test: %v, and %v for the load\n", took.Round(time.Millisecond), load.Round(time.Millisecond))
			return nil
		}
	}
	return fmt.Errorf("%s: no test started", events)
}
