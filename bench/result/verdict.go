package result

// Verdict says how far the speed of a record can be trusted.
type Verdict struct {
	Verdict Judgement `json:"verdict"`
	// Reasons explain a verdict that is not Valid. The reason that explains most comes
	// first.
	Reasons []Reason `json:"reasons,omitempty"`
	// Unchecked lists the codes of reasons for which this machine does not tell enough.
	Unchecked []string `json:"unchecked,omitempty"`
}

// Judgement is one word about a record.
type Judgement string

// The judgements, from the best to the worst.
const (
	Valid    Judgement = "valid"    // nothing was found that could have moved the speed
	Doubtful Judgement = "doubtful" // the speed may be some percent off
	Invalid  Judgement = "invalid"  // the figure says little about the machine
)

// Reason is why a record is doubtful or invalid.
type Reason struct {
	Code      string  `json:"code"`      // stable, for programs
	Value     float64 `json:"value"`     // in the unit of the code
	Threshold float64 `json:"threshold"` // that the value reached, in the same unit
	Source    string  `json:"source"`    // where the value was read
	Message   string  `json:"message"`   // one line, lower case, no full stop, with its numbers
}
