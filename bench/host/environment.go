package host

import (
	"regexp"
	"strings"
)

// Variables that change the speed of ggml, llama.cpp, OpenMP, the drivers and
// libraries of GPUs, the C library or this program, or which devices are seen.
var speedVariable = regexp.MustCompile(`^((GGML|LLAMA|OMP|GOMP|KMP|LIBOMP|MKL|OPENBLAS|BLIS|CUDA|CUBLAS|NVIDIA|NCCL|HIP|HSA|ROCR|ROCBLAS|GPU|SYCL|ONEAPI|ZE|MESA|RADV|MALLOC)_.*` +
	`|GLIBC_TUNABLES|LD_PRELOAD|LD_LIBRARY_PATH|LD_BIND_NOW|GODEBUG|GOGC|GOMAXPROCS|GOMEMLIMIT)$`)

// secretName matches variables that may hold a secret.
var secretName = regexp.MustCompile(`(?i)token|secret|passw|key|auth|credential`)

// Redacted stands in place of what may be a secret.
const Redacted = "(redacted)"

// What Redact replaces, in this order.
var secrets = []struct {
	pattern     *regexp.Regexp
	replacement string
}{
	// The query and fragment of an address: signed addresses carry their
	// signature there.
	{regexp.MustCompile(`(\w://[^\s"<>?#]*)[?#][^\s"<>]*`), "${1}?" + Redacted},
	// The user of an address, whose password may contain an @.
	{regexp.MustCompile(`(\w://)[^\s"<>/]*@`), "${1}" + Redacted + "@"},
	// Access tokens by their known beginnings.
	{regexp.MustCompile(`\b(hf_|sk-|gh[pousr]_|github_pat_|glpat-|AKIA|eyJ)[A-Za-z0-9_.-]*[A-Za-z0-9]`), Redacted},
	// HTTP's headers.
	{regexp.MustCompile(`(?i)(authorization: *basic |\bbearer )[A-Za-z0-9+/=_.~-]{6,}`), "${1}" + Redacted},
	// Variables: HF_TOKEN=…
	{regexp.MustCompile(`\b([A-Z][A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|PASSWD|KEY)=)[^\s"]+`), "${1}" + Redacted},
}

// Redact replaces what may be a secret in a text: access tokens, and the
// queries, fragments and users of addresses. What is no secret may be replaced
// too. Redact of its own result changes nothing.
func Redact(s string) string {
	for _, secret := range secrets {
		s = secret.pattern.ReplaceAllString(s, secret.replacement)
	}
	return s
}

// environment picks from os.Environ's "NAME=value" the variables that change
// speed.
func environment(environ []string) map[string]string {
	picked := map[string]string{}
	for _, e := range environ {
		name, value, ok := strings.Cut(e, "=")
		switch {
		case !ok || !speedVariable.MatchString(name):
		case secretName.MatchString(name):
			picked[name] = Redacted
		default:
			picked[name] = Redact(value)
		}
	}
	return picked
}
