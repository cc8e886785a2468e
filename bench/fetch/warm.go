package fetch

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// WarmOptions bound a Warm.
type WarmOptions struct {
	AvailableBytes int64 // of memory that the file may take; a larger file is not read, 0 or less is unknown and reads it
}

// warmBytesPerSecond is the slowest disk that is waited for: a file on a slower
// one is read as far as that time goes.
const warmBytesPerSecond = 50e6

// Warm reads a file into the page cache, so that loading it is not charged for
// a slow disk. It stops when the time that the file takes at 50 MB/s is over,
// and returns how many bytes it read; neither that nor a file that is larger
// than the memory available is an error. Errors are those of the file system and
// the cause of the context.
func Warm(ctx context.Context, path string, o WarmOptions) (read int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if o.AvailableBytes > 0 && info.Size() > o.AvailableBytes {
		return 0, nil
	}
	return warm(ctx, f, time.Duration(float64(info.Size())/warmBytesPerSecond*float64(time.Second)))
}

func warm(ctx context.Context, r io.Reader, limit time.Duration) (read int64, err error) {
	end := time.Now().Add(limit)
	buf := make([]byte, 1<<20)
	for {
		n, err := r.Read(buf)
		read += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			return read, nil
		case err != nil:
			return read, err
		case context.Cause(ctx) != nil:
			return read, context.Cause(ctx)
		case !time.Now().Before(end):
			return read, nil
		}
	}
}
