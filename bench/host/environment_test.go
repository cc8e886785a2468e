package host

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEnvironment(t *testing.T) {
	got := environment([]string{
		"OMP_NUM_THREADS=4", "GOMP_SPINCOUNT=", "GGML_CUDA_FORCE_MMQ=1", "CUDA_VISIBLE_DEVICES=0,1", "LLAMA_ARG_X=a=b",
		"KMP_AFFINITY=compact", "NVIDIA_VISIBLE_DEVICES=all", "MALLOC_ARENA_MAX=2", "GLIBC_TUNABLES=glibc.malloc.hugetlb=1",
		"GODEBUG=madvdontneed=1", "HIP_VISIBLE_DEVICES=0", "HSA_OVERRIDE_GFX_VERSION=11.0.0", "LD_PRELOAD=/usr/lib/libjemalloc.so.2",
		"LLAMA_ARG_HF_TOKEN=abc", "LLAMA_API_KEY=abc", "GGML_PASSWORD=abc", "NVIDIA_API_KEY=abc", "GGML_SECRET=abc", "LLAMA_AUTH=abc", "CUDA_CREDENTIALS=abc",
		"LLAMA_ARG_A=hf_abc", "LLAMA_ARG_PROXY=https://user:abc@example.org/", "LLAMA_ARG_URL=https://example.org/a",
		"LLAMA_ARG_SIGNED=https://example.org/a?sig=abc",
		"HF_TOKEN=abc", "PATH=/bin", "MY_OMP_NUM_THREADS=3", "GODEBUGGER=1", "GLIBC_TUNABLES_OLD=1", "MALLOC=1", "broken",
	})
	want := map[string]string{
		"OMP_NUM_THREADS": "4", "GOMP_SPINCOUNT": "", "GGML_CUDA_FORCE_MMQ": "1", "CUDA_VISIBLE_DEVICES": "0,1", "LLAMA_ARG_X": "a=b",
		"KMP_AFFINITY": "compact", "NVIDIA_VISIBLE_DEVICES": "all", "MALLOC_ARENA_MAX": "2", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
		"GODEBUG": "madvdontneed=1", "HIP_VISIBLE_DEVICES": "0", "HSA_OVERRIDE_GFX_VERSION": "11.0.0", "LD_PRELOAD": "/usr/lib/libjemalloc.so.2",
		"LLAMA_ARG_HF_TOKEN": Redacted, "LLAMA_API_KEY": Redacted, "GGML_PASSWORD": Redacted, "NVIDIA_API_KEY": Redacted,
		"GGML_SECRET": Redacted, "LLAMA_AUTH": Redacted, "CUDA_CREDENTIALS": Redacted,
		"LLAMA_ARG_A": Redacted, "LLAMA_ARG_PROXY": "https://(redacted)@example.org/", "LLAMA_ARG_URL": "https://example.org/a",
		"LLAMA_ARG_SIGNED": "https://example.org/a?(redacted)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"/models/a.gguf":        "/models/a.gguf",
		"hf:user/repo/f@v1.0":   "hf:user/repo/f@v1.0",
		"-p 16 n_tokens=512":    "-p 16 n_tokens=512",
		"basic checks, no auth": "basic checks, no auth",
		"https://hub.example/u/r/resolve/main/m@x.gguf":              "https://hub.example/u/r/resolve/main/m@x.gguf",
		"https://hub.example/m.gguf?token=abc":                       "https://hub.example/m.gguf?(redacted)",
		"https://hub.example/m.gguf?":                                "https://hub.example/m.gguf?(redacted)",
		"https://hub.example/m.gguf#access_token=abc":                "https://hub.example/m.gguf?(redacted)",
		"http://hub.example?a=b@c":                                   "http://hub.example?(redacted)",
		`Get "https://h.example/m?X-Sig=a%22b&c=d": timeout`:         `Get "https://h.example/m?(redacted)": timeout`,
		"from http://h.example/a?b=c to http://h.example/d?e=f done": "from http://h.example/a?(redacted) to http://h.example/d?(redacted) done",
		"http://user:p@ss@proxy.example:3128/x":                      "http://(redacted)@proxy.example:3128/x",
		"socks5://user@proxy.example":                                "socks5://(redacted)@proxy.example",
		"hf_abcDEF123":                                               Redacted,
		"--token=hf_abcDEF123,next":                                  "--token=(redacted),next",
		"ghp_0123456789abcdef sk-proj-a_b":                           "(redacted) (redacted)",
		"gho_a ghu_b ghs_c ghr_d github_pat_e glpat-f":               strings.TrimSpace(strings.Repeat(" "+Redacted, 6)),
		"AKIA0123456789ABCDEF eyJhbGciOiJIUzI1NiJ9.e30.abc":          "(redacted) (redacted)",
		"A_TOKEN=a B_SECRET=b C_PASSWORD=c D_PASSWD=d E_API_KEY=e":   "A_TOKEN=(redacted) B_SECRET=(redacted) C_PASSWORD=(redacted) D_PASSWD=(redacted) E_API_KEY=(redacted)",
		"Authorization: Bearer abc.def-ghi":                          "Authorization: Bearer (redacted)",
		"authorization: basic dXNlcjpwYXNz":                          "authorization: basic (redacted)",
		"HF_TOKEN=abc run":                                           "HF_TOKEN=(redacted) run",
	} {
		got := Redact(in)
		if got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
		if again := Redact(got); again != got {
			t.Errorf("%q again is %q", got, again)
		}
	}
}

// No secret is left, whatever text surrounds it, and redacting twice changes nothing.
func FuzzRedact(f *testing.F) {
	for _, s := range []string{"", " ", "?", "://", "a://b@", "?x=", `"`, "hf_", "#", "Bearer "} {
		f.Add(s, "/m.gguf ")
	}
	const secret = "S3cr3tS3cr3t"
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, s := range []string{
			before + " https://h.example/m.gguf?sig=" + secret + " " + after,
			before + " https://user:" + secret + "@h.example/" + after,
			before + " hf_" + secret + " " + after,
		} {
			got := Redact(s)
			if strings.Contains(got, secret) {
				t.Errorf("%q is %q", s, got)
			}
			if again := Redact(got); again != got {
				t.Errorf("%q again is %q", got, again)
			}
		}
	})
}
