package commandline

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHub(t *testing.T) {
	for _, c := range []struct{ args, want, env, notes string }{
		{"-m a -p 1", "-m a -p 1", "", ""},
		{"-p 1 -hf u/r:Q4_K_M -hff f.gguf -n 2", "-p 1 --model hf:u/r/f.gguf -n 2", "", "--hf-repo u/r:Q4_K_M --hf-file f.gguf: --model hf:u/r/f.gguf"},
		{"--hf-file=a.gguf,b.gguf -hfr u/r,v/s", "--model hf:u/r/a.gguf --model hf:v/s/b.gguf", "", "--hf-repo u/r --hf-file a.gguf: --model hf:u/r/a.gguf; --hf-repo v/s --hf-file b.gguf: --model hf:v/s/b.gguf"},
		{"-hf u/r -p 1", "--model hf:u/r -p 1", "", "--hf-repo u/r: --model hf:u/r"},
		{"-hf u/r:Q8_0,v/s", "--model hf:u/r:Q8_0 --model hf:v/s", "", "--hf-repo u/r:Q8_0: --model hf:u/r:Q8_0; --hf-repo v/s: --model hf:v/s"},
		{"-hf u/r,v/s -hff f.gguf -p 1", "-p 1 --hf-repo=u/r,v/s --hf-file=f.gguf", "", ""}, // refused by its name
		{"-hff f.gguf", "--hf-file=f.gguf", "", ""},
		{"-hft secret --offline -m a", "-m a", "HF_HUB_OFFLINE=1 HF_TOKEN=secret", "--hf-token: HF_TOKEN; --offline: HF_HUB_OFFLINE=1"},
		{"-m a -- --offline", "-m a -- --offline", "", ""},
	} {
		got, env, notes := Hub(strings.Fields(c.args))
		if d := cmp.Diff(strings.Fields(c.want), got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", c.args, d)
		}
		var set, said []string
		for _, name := range []string{"HF_HUB_OFFLINE", "HF_TOKEN"} {
			if value, ok := env[name]; ok {
				set = append(set, name+"="+value)
			}
		}
		for _, n := range notes {
			said = append(said, n.Given+": "+n.As)
		}
		if d := cmp.Diff([]string{c.env, c.notes}, []string{strings.Join(set, " "), strings.Join(said, "; ")}); d != "" {
			t.Errorf("%s: environment and notes (-want +got)\n%s", c.args, d)
		}
	}
}
