package acquire_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/acquire"
)

// Models with the same note share it.
func TestNotes(t *testing.T) {
	p := acquire.Plan{Models: []acquire.PlannedModel{
		{Name: "a", Notes: []string{"size unknown: dead"}}, {Name: "b"}, {Name: "c", Notes: []string{"other", "size unknown: dead"}},
	}}
	want := []acquire.Note{{Text: "size unknown: dead", Models: []string{"a", "c"}}, {Text: "other", Models: []string{"c"}}}
	if diff := cmp.Diff(want, p.Notes()); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}
