package synth

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// WriteFile writes a temporary file beside path and renames it, so that path is never
// half a file. It writes to a pipe or a device directly. It fails when ctx ends.
func WriteFile(ctx context.Context, path string, from io.WriterTo) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = from.WriteTo(contextWriter{ctx, f})
		return errors.Join(err, f.Close())
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // after the rename it does nothing
	if _, err := from.WriteTo(contextWriter{ctx, f}); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// contextWriter is a writer that fails when ctx ends.
type contextWriter struct {
	ctx context.Context
	io.Writer
}

func (w contextWriter) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.Writer.Write(p)
}
