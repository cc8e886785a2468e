package host

import (
	"regexp"
	"strings"
)

// Variables that change the speed of ggml, llama.cpp, OpenMP or CUDA.
var speedVariable = regexp.MustCompile(`^(GGML|LLAMA|OMP|GOMP|CUDA)_`)

// What may be a secret: by the name of the variable, by the known beginning of
// an access token, or by a user in an address.
var (
	secretName  = regexp.MustCompile(`(?i)token|secret|passw|key|auth|credential`)
	secretValue = regexp.MustCompile(`^(hf_|sk-|gh[pousr]_|github_pat_|glpat-|AKIA|eyJ)|://[^/\s]*@`)
)

// Redacted stands in place of what may be a secret.
const Redacted = "(redacted)"

// environment picks from os.Environ's "NAME=value" the variables that change
// speed.
func environment(environ []string) map[string]string {
	picked := map[string]string{}
	for _, e := range environ {
		name, value, ok := strings.Cut(e, "=")
		if !ok || !speedVariable.MatchString(name) {
			continue
		}
		if secretName.MatchString(name) || secretValue.MatchString(value) {
			value = Redacted
		}
		picked[name] = value
	}
	return picked
}
