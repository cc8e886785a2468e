package result

import "time"

// GPUReading is what the driver said of one GPU at one moment. What it does not
// tell is nil.
type GPUReading struct {
	At             time.Time
	PowerWatts     *float64 // of the whole board; on recent ones the mean of the second before
	EnergyJoules   *float64 // counted since the driver was loaded
	SMClockMHz     *float64
	MemoryClockMHz *float64
	TemperatureC   *float64
	UsedBytes      *uint64  // memory in use, of all processes together
	Throttled      []string // why clocks are lower than they could be; empty: they are not, or it is not told
}
