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
	AvailableBytes int64 // of memory that the model may take; a larger one is not read, 0 or less is unknown and reads it
}

// warmBytesPerSecond is the slowest disk that is waited for: a file on a slower
// one is read as far as that time goes.
const warmBytesPerSecond = 50e6

// Warm reads a model's file, or files, into the page cache, so that loading it is
// not charged for a slow disk. It stops when the time that it takes at 50 MB/s is
// over, and returns how many bytes it read; neither that nor a model that is
// larger than the memory available is an error. Errors are those of the file
// system and the cause of the context.
func Warm(ctx context.Context, paths []string, o WarmOptions) (read int64, err error) {
	var size int64
	files := make([]io.Reader, len(paths))
	for i, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		files[i], size = f, size+info.Size()
	}
	if o.AvailableBytes > 0 && size > o.AvailableBytes {
		return 0, nil
	}
	return warm(ctx, io.MultiReader(files...), time.Duration(float64(size)/warmBytesPerSecond*float64(time.Second)))
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
