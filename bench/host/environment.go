package host

import (
	"regexp"
	"strings"
)

// speedVariable matches variables that change the speed of ggml, llama.cpp, OpenMP,
// GPU drivers and libraries, the C library or this program, or that choose devices.
var speedVariable = regexp.MustCompile(`^((GGML|LLAMA|OMP|GOMP|KMP|LIBOMP|MKL|OPENBLAS|BLIS|CUDA|CUBLAS|NVIDIA|NCCL|HIP|HSA|ROCR|ROCBLAS|GPU|SYCL|ONEAPI|ZE|MESA|RADV|MALLOC)_.*` +
	`|GLIBC_TUNABLES|LD_PRELOAD|LD_LIBRARY_PATH|LD_BIND_NOW|GODEBUG|GOGC|GOMAXPROCS|GOMEMLIMIT)$`)

// secretName matches variables that may hold a secret.
var secretName = regexp.MustCompile(`(?i)token|secret|passw|key|auth|credential`)

// Redacted replaces what may be a secret.
const Redacted = "(redacted)"

// secrets lists what Redact replaces, in this order.
var secrets = []struct {
	pattern     *regexp.Regexp
	replacement string
}{
	// The query and fragment of a URL. Signed URLs carry their signature there.
	{regexp.MustCompile(`(\w://[^\s"<>?#]*)[?#][^\s"<>]*`), "${1}?" + Redacted},
	// The user of a URL. Its password may contain an @.
	{regexp.MustCompile(`(\w://)[^\s"<>/]*@`), "${1}" + Redacted + "@"},
	// Access tokens by their known beginnings.
	{regexp.MustCompile(`\b(hf_|sk-|gh[pousr]_|github_pat_|glpat-|AKIA|eyJ)[A-Za-z0-9_.-]*[A-Za-z0-9]`), Redacted},
	// HTTP headers.
	{regexp.MustCompile(`(?i)(authorization: *basic |\bbearer )[A-Za-z0-9+/=_.~-]{6,}`), "${1}" + Redacted},
	// Environment variables: HF_TOKEN=…
	{regexp.MustCompile(`\b([A-Z][A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|PASSWD|KEY)=)[^\s"]+`), "${1}" + Redacted},
}

// Redact replaces what may be a secret in a text: access tokens, and the query,
// fragment and user of URLs. It may also replace what is no secret. Applying it
// twice changes nothing more.
func Redact(s string) string {
	for _, secret := range secrets {
		s = secret.pattern.ReplaceAllString(s, secret.replacement)
	}
	return s
}

// environment returns those of os.Environ's variables that change speed.
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
