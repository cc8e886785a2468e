package acquire

import (
	"context"
	"errors"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// Named returns the source that a name of a model stands for. Of a repository on the hub,
// hf:user/repository[:quantisation][@revision], it is the file that llama.cpp's -hf takes.
// Only then a server is asked. The error is source.ErrBad, an *Error, or the cause of ctx.
func Named(ctx context.Context, client *fetch.Client, text string) (source.Source, error) {
	r, ok, err := source.ParseRepository(text)
	if err != nil {
		return source.Source{}, err
	}
	if !ok {
		return source.Parse(text)
	}
	src, err := client.Choose(ctx, r)
	if err != nil && !errors.Is(err, source.ErrBad) {
		err = &Error{NotChosen, text, err}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	return src, err
}
