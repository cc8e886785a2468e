package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/sparecores/benchmark-llm/bench"
)

// ErrOrphaned is the error of a worker whose parent is gone.
var ErrOrphaned = errors.New("the parent process is gone")

// maxJobBytes is the maximum length of the job's line. A prompt file has up to 16 MiB,
// of which JSON makes up to six times as much, and completed repetitions of end-to-end
// tests have the time of each token.
const maxJobBytes = 256 << 20

// repeatByte is the parent's answer to an event that it has not kept, instead of a
// newline.
const repeatByte = 'r'

// Serve is the worker's side. It reads a job from in, runs it, and writes its events to
// out. Each event is acknowledged on in before the next one. When in ends, the context
// of run ends with ErrOrphaned, and Serve calls orphaned from another goroutine,
// because the engine may not see the end of the context.
func Serve(ctx context.Context, in io.Reader, out io.Writer, orphaned func(),
	run func(ctx context.Context, job bench.Job, emit func(bench.Stamped) error) error,
) error {
	r := bufio.NewReader(in)
	line, err := readJob(r)
	if err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	var job bench.Job
	if err := json.Unmarshal(line, &job); err != nil {
		return fmt.Errorf("decode job: %w", err)
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	acks := make(chan byte)
	gone := make(chan struct{})
	served := make(chan struct{})
	defer close(served)
	go func() {
		for {
			ack, err := r.ReadByte()
			if err != nil {
				cancel(ErrOrphaned)
				close(gone)
				orphaned()
				return
			}
			select {
			case acks <- ack:
			case <-served:
				return
			}
		}
	}()

	var mu sync.Mutex
	emit := func(e bench.Stamped) error {
		mu.Lock()
		defer mu.Unlock()
		line, err := e.MarshalLine()
		if err != nil {
			return err
		}
		if _, err := out.Write(line); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
		select {
		case ack := <-acks:
			if ack == repeatByte {
				return bench.ErrRepeat
			}
			return nil
		case <-gone:
			return ErrOrphaned
		}
	}
	return run(ctx, job, emit)
}

// readJob reads the first line.
func readJob(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxJobBytes:
			return nil, fmt.Errorf("longer than %d bytes", maxJobBytes)
		case !errors.Is(err, bufio.ErrBufferFull):
			return line, err
		}
	}
}
