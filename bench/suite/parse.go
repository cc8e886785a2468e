package suite

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// MaxLengths bounds the number of lengths in a list. More are a typing mistake.
const MaxLengths = 1000

// ParseLengths reads a list of lengths in tokens in llama-bench's syntax: numbers and
// ranges, separated by commas. A range is first-last, first-last+step or
// first-last*factor.
func ParseLengths(text string) ([]int, error) {
	var values []int
	for item := range strings.SplitSeq(text, ",") {
		more, err := parseRange(strings.TrimSpace(item))
		if err != nil {
			return nil, err
		}
		if values = append(values, more...); len(values) > MaxLengths {
			return nil, fmt.Errorf("more than %d lengths", MaxLengths)
		}
	}
	return values, nil
}

// parseRange reads a length or a range.
func parseRange(item string) ([]int, error) {
	// The first character may be a sign.
	dash := strings.Index(item[min(1, len(item)):], "-") + 1
	if dash == 0 {
		n, err := ParseLength(item)
		return []int{n}, err
	}
	step, factor, last := 1, 1, item[dash+1:]
	if text, s, ok := strings.Cut(last, "+"); ok {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > result.MaxTokens {
			return nil, fmt.Errorf("step %q of %q is outside 1…%d", s, item, result.MaxTokens)
		}
		step, last = n, text
	} else if text, f, ok := strings.Cut(last, "*"); ok {
		n, err := strconv.Atoi(f)
		if err != nil || n < 2 || n > result.MaxTokens {
			return nil, fmt.Errorf("factor %q of %q is outside 2…%d", f, item, result.MaxTokens)
		}
		step, factor, last = 0, n, text
	}
	from, err := ParseLength(item[:dash])
	if err != nil {
		return nil, fmt.Errorf("range %q: %w", item, err)
	}
	to, err := ParseLength(last)
	if err != nil {
		return nil, fmt.Errorf("range %q: %w", item, err)
	}
	if from > to || (factor > 1 && from == 0) {
		return nil, fmt.Errorf("range %q does not go up", item)
	}
	var values []int
	for n := from; n <= to; n = n*factor + step {
		if values = append(values, n); len(values) > MaxLengths {
			return nil, fmt.Errorf("range %q has more than %d lengths", item, MaxLengths)
		}
	}
	return values, nil
}

// ParseLength reads a length in tokens.
func ParseLength(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number of tokens", s)
	}
	if n < 0 || n > result.MaxTokens {
		return 0, fmt.Errorf("length %d is outside 0…%d tokens", n, result.MaxTokens)
	}
	return n, nil
}
