package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDevicesFlag(t *testing.T) {
	for text, want := range map[string]devicesFlag{
		"CUDA0": {"CUDA0"}, "CUDA0/CUDA1": {"CUDA0", "CUDA1"}, "RPC1,RPC0": {"RPC1", "RPC0"},
		"": nil, "CUDA0,": nil, "/": nil, "CUDA0/CUDA0": nil,
	} {
		var got devicesFlag
		if err := got.Set(text); (err != nil) != (want == nil) {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestSharesFlag(t *testing.T) {
	for text, want := range map[string]sharesFlag{
		"1": {1}, "3/1": {3, 1}, "0.5,0.5": {0.5, 0.5}, "0/1": {0, 1},
		"": nil, "3/": nil, "0/0": nil, "-1/2": nil, "a/b": nil, "NaN": nil, "Inf/1": nil, "1e39": nil,
	} {
		var got sharesFlag
		if err := got.Set(text); (err != nil) != (want == nil) {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}
