package report

import (
	"bytes"
	"encoding/json"
	"io"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// tokenTime is one token that an end-to-end test generated.
type tokenTime struct {
	Model      string `json:"model"`
	Test       string `json:"test"`
	Repetition int    `json:"repetition"` // from 1
	Index      int    `json:"index"`      // of the token, from 1
	Token      int32  `json:"token"`      // of the vocabulary
	At         int64  `json:"ns"`         // from the start of the repetition until the token's text was there
}

// WriteTokenTimes writes a line of JSON for each token of each completed repetition
// of an end-to-end test, also if the test itself did not complete.
func WriteTokenTimes(w io.Writer, o *result.Outcome) error {
	var lines bytes.Buffer
	e := json.NewEncoder(&lines)
	for _, s := range o.Samples {
		if s.Generated == nil {
			continue
		}
		for i, token := range s.Generated.Tokens {
			line := tokenTime{o.Model, o.Test.String(), s.Repetition, i + 1, token, s.Generated.At[i].Nanoseconds()}
			if err := e.Encode(line); err != nil {
				return err
			}
		}
	}
	_, err := w.Write(lines.Bytes())
	return err
}
