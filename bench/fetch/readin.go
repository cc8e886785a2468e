package fetch

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// ReadInOptions are the limits of ReadIn.
type ReadInOptions struct {
	AvailableBytes int64 // memory for the model; a larger model is not read; 0 or less is unknown, and the model is read
}

// readInBytesPerSecond is the speed of the slowest disk from which a model is read
// completely.
const readInBytesPerSecond = 50e6

// ReadIn reads a model's files into the page cache, to take a slow disk out of the
// load time. It returns the number of bytes that it read. It stops after the time
// that the files take at 50 MB/s. This is not an error, and neither is a model that
// is larger than the available memory. Errors are those of the file system and the
// cause of the context.
func ReadIn(ctx context.Context, paths []string, o ReadInOptions) (read int64, err error) {
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
	return readIn(ctx, io.MultiReader(files...), time.Duration(float64(size)/readInBytesPerSecond*float64(time.Second)))
}

// readIn reads until the end of r, for at most limit.
func readIn(ctx context.Context, r io.Reader, limit time.Duration) (read int64, err error) {
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
