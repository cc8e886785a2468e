package llama

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChanges(t *testing.T) {
	var got []Change
	for _, line := range []string{
		"load_tensors: loading model tensors, this can take a while... (load_mode = mlock)",
		"warning: failed to mlock 118784-byte buffer (after previously locking 0 bytes): Cannot allocate memory",
		"Try increasing RLIMIT_MEMLOCK ('ulimit -l' as root).",
		"warning: failed to mlock 4096-byte buffer (after previously locking 0 bytes): Cannot allocate memory",
		"read_raw_unsafe: Falling back to buffered IO due to Bad address",
		"llama_context: flash_attn            = enabled",
		"resolve_fused_ops: Flash Attention enabled",
		"resolve_fused_ops: fused Gated Delta Net (chunked) not supported, set to disabled",
		"resolve_fused_ops: Flash Attention not supported, set to disabled",
	} {
		got = addChange(got, line)
	}
	want := []Change{
		{NotLocked, "118784-byte buffer (after previously locking 0 bytes): Cannot allocate memory"},
		{NotDirect, "Bad address"},
		{FlashIsOff, "not supported"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	for line, want := range map[string]Change{
		"Failed to open file '/m/a.gguf' with error: Invalid argument. Falling back to buffered I/O": {NotDirect, "Invalid argument"},
		"llama_init_from_model: flash_attn is not compatible with Grok - forcing off":                {FlashIsOff, "not compatible with Grok"},
	} {
		if diff := cmp.Diff([]Change{want}, addChange(nil, line)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}
