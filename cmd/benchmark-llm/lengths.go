package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// lengthsFlag is a list of lengths in tokens, as llama-bench takes it: numbers
// separated by commas, ranges first-last, first-last+step, first-last*factor.
// Giving the flag again adds to it; the first time it replaces the default.
type lengthsFlag struct {
	values  []int
	changed bool
}

func (l *lengthsFlag) Type() string { return "tokens" }

func (l *lengthsFlag) String() string {
	s := make([]string, len(l.values))
	for i, n := range l.values {
		s[i] = strconv.Itoa(n)
	}
	return strings.Join(s, ",")
}

// maxLengths bounds a range: more tests than that is a typing mistake.
const maxLengths = 1000

func (l *lengthsFlag) Set(text string) error {
	var values []int
	for item := range strings.SplitSeq(text, ",") {
		more, err := parseRange(strings.TrimSpace(item))
		if err != nil {
			return err
		}
		if values = append(values, more...); len(values) > maxLengths {
			return fmt.Errorf("more than %d lengths", maxLengths)
		}
	}
	if !l.changed {
		l.values = nil
	}
	l.values, l.changed = append(l.values, values...), true
	return nil
}

func parseRange(item string) ([]int, error) {
	// The first character may be a sign.
	dash := strings.Index(item[min(1, len(item)):], "-") + 1
	if dash == 0 {
		n, err := parseLength(item)
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
	from, err := parseLength(item[:dash])
	if err != nil {
		return nil, fmt.Errorf("range %q: %w", item, err)
	}
	to, err := parseLength(last)
	if err != nil {
		return nil, fmt.Errorf("range %q: %w", item, err)
	}
	if from > to || (factor > 1 && from == 0) {
		return nil, fmt.Errorf("range %q does not go up", item)
	}
	var values []int
	for n := from; n <= to; n = n*factor + step {
		if values = append(values, n); len(values) > maxLengths {
			return nil, fmt.Errorf("range %q has more than %d lengths", item, maxLengths)
		}
	}
	return values, nil
}

func parseLength(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number of tokens", s)
	}
	if n < 0 || n > result.MaxTokens {
		return 0, fmt.Errorf("length %d is outside 0…%d tokens", n, result.MaxTokens)
	}
	return n, nil
}

// pairsFlag is a list of combined tests, each given as prompt,generation.
type pairsFlag struct{ values [][2]int }

func (p *pairsFlag) Type() string { return "pp,tg" }

func (p *pairsFlag) String() string {
	s := make([]string, len(p.values))
	for i, v := range p.values {
		s[i] = fmt.Sprintf("%d,%d", v[0], v[1])
	}
	return strings.Join(s, " ")
}

func (p *pairsFlag) Set(text string) error {
	prompt, gen, ok := strings.Cut(text, ",")
	if !ok {
		return fmt.Errorf("%q is not two lengths, as 512,128", text)
	}
	a, err := parseLength(prompt)
	if err != nil {
		return err
	}
	b, err := parseLength(gen)
	if err != nil {
		return err
	}
	p.values = append(p.values, [2]int{a, b})
	return nil
}
