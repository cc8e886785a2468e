package result

// Parts has a value of each part of a machine: energy in J, power in W. A part that is
// not known is nil. Parts contain one another: Psys and System contain Package, and System
// contains all. So they cannot be added up.
type Parts struct {
	Package *float64 `json:"package,omitempty"` // all CPU packages, with their caches and integrated GPUs
	DRAM    *float64 `json:"dram,omitempty"`    // memory of all packages
	Psys    *float64 `json:"psys,omitempty"`    // the platform, as Intel's CPUs count it
	System  *float64 `json:"system,omitempty"`  // the whole machine, by its power supply or battery
	GPU     *float64 `json:"gpu,omitempty"`     // the GPUs that hold layers
}

// NamedPart is one part of Parts.
type NamedPart struct {
	Name  string // as in JSON: "package"
	Value **float64
}

// All lists the parts in one order, also those that are not known.
func (p *Parts) All() []NamedPart {
	return []NamedPart{{"package", &p.Package}, {"dram", &p.DRAM}, {"psys", &p.Psys}, {"system", &p.System}, {"gpu", &p.GPU}}
}

// Known lists the parts that have a value.
func (p *Parts) Known() (known []NamedPart) {
	for _, part := range p.All() {
		if *part.Value != nil {
			known = append(known, part)
		}
	}
	return known
}

// Times returns the parts multiplied by a factor.
func (p Parts) Times(factor float64) (product Parts) {
	to := product.All()
	for i, from := range p.All() {
		if *from.Value != nil {
			*to[i].Value = new(**from.Value * factor)
		}
	}
	return product
}

// Energy is what the timed repetitions of a test used. Counters are read before the first
// repetition and after each, never while the clock runs, so they also count the untimed
// pass that primes each repetition. Joules has the share of the timed part, as if power
// were the same throughout: counted energy · TimedSeconds / WindowSeconds. Idle power is
// part of it.
type Energy struct {
	Repetitions    int      `json:"repetitions"`               // that it covers: those of this worker
	TimedSeconds   float64  `json:"timed_s"`                   // of these repetitions
	WindowSeconds  float64  `json:"window_s,omitempty"`        // between the readings; absent if only GPUs were read
	Joules         Parts    `json:"joules,omitzero"`           // of the timed repetitions
	JoulesPerToken Parts    `json:"joules_per_token,omitzero"` // tokens are those of the test, without its depth
	IdleWatts      Parts    `json:"idle_w,omitzero"`           // before the first test of the run; not subtracted
	Sampled        []string `json:"sampled,omitempty"`         // parts whose power was read now and then; the others count energy
}

// Whole returns the energy per token of the machine in J, as far as it is known, and the
// parts that it consists of: the system, else the platform or the packages with their
// memory, and the GPUs. It is 0 if nothing is known.
func (e *Energy) Whole() (joulesPerToken float64, of []string) {
	if e == nil {
		return 0, nil
	}
	p := e.JoulesPerToken
	switch {
	case p.System != nil:
		return *p.System, []string{"system"}
	case p.Psys != nil:
		p.Package, p.DRAM = nil, nil
	}
	for _, part := range p.Known() {
		joulesPerToken += **part.Value
		of = append(of, part.Name)
	}
	return joulesPerToken, of
}
