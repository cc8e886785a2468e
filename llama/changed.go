package llama

import "regexp"

// Change is a setting that the library did not use as it was asked to. The library has
// no call that tells it, so it is read from its log. TestChangeTexts fails if the wording
// of the log changes.
type Change struct {
	Kind ChangeKind
	Why  string // the library's reason
}

// ChangeKind tells what changed.
type ChangeKind int

// The kinds of changes.
const (
	NotLocked  ChangeKind = iota // LoadMlock or LoadMmapMlock: the weights are not locked in memory, or not all of them
	NotDirect                    // LoadDirectIO: the file was read through the page cache
	FlashIsOff                   // FlashOn or FlashAuto: attention is not computed in one fused step
)

// changes are the library's lines about them. A pattern's last group is the reason.
var changes = []struct {
	kind    ChangeKind
	pattern *regexp.Regexp
}{
	// "warning: failed to mlock 118784-byte buffer (after previously locking 0 bytes): Cannot allocate memory"
	{NotLocked, regexp.MustCompile(`failed to mlock (.+)$`)},
	// "Failed to open file 'm.gguf' with error: Invalid argument. Falling back to buffered I/O"
	{NotDirect, regexp.MustCompile(`^Failed to open file '.*' with error: (.+)\. Falling back to buffered I/O$`)},
	// "read_raw_unsafe: Falling back to buffered IO due to Bad address"
	{NotDirect, regexp.MustCompile(`Falling back to buffered IO due to (.+)$`)},
	// "llama_init_from_model: flash_attn is not compatible with Grok - forcing off"
	{FlashIsOff, regexp.MustCompile(`: flash_attn is (not compatible with .+) - forcing off$`)},
	// "resolve_fused_ops: Flash Attention not supported, set to disabled"
	{FlashIsOff, regexp.MustCompile(`Flash Attention (not supported), set to disabled$`)},
}

// changeOf is the change that a line of the library's log reports.
func changeOf(line string) (c Change, ok bool) {
	for _, known := range changes {
		if m := known.pattern.FindStringSubmatch(line); m != nil {
			return Change{known.kind, m[len(m)-1]}, true
		}
	}
	return Change{}, false
}

// addChange adds the change that a line reports, once of each kind.
func addChange(all []Change, line string) []Change {
	c, ok := changeOf(line)
	for _, known := range all {
		ok = ok && known.Kind != c.Kind
	}
	if ok {
		all = append(all, c)
	}
	return all
}
