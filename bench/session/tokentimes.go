package session

import (
	"errors"
	"fmt"
	"os"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// ErrTokenTimes is a file of token times that cannot be written.
var ErrTokenTimes = errors.New("--token-times")

// TokenTimes is a file of the time of every token. It consumes the outcomes of a run. A
// nil receiver keeps nothing. Errors are ErrTokenTimes.
type TokenTimes struct{ f *os.File }

func failedTokenTimes(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrTokenTimes, err)
}

// CreateTokenTimes creates the file; nil if path is empty.
func CreateTokenTimes(path string) (*TokenTimes, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // as documented
	}
	f, err := os.Create(path)
	return &TokenTimes{f}, failedTokenTimes(err)
}

// Event does nothing: the file gets outcomes.
func (*TokenTimes) Event(bench.Stamped) error { return nil }

// Outcome adds the tokens of all completed repetitions.
func (t *TokenTimes) Outcome(o *result.Outcome) error {
	if t == nil {
		return nil
	}
	return failedTokenTimes(report.WriteTokenTimes(t.f, o))
}

// Close is idempotent.
func (t *TokenTimes) Close() error {
	if t == nil {
		return nil
	}
	if err := t.f.Close(); !errors.Is(err, os.ErrClosed) {
		return failedTokenTimes(err)
	}
	return nil
}
