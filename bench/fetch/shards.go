package fetch

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// Survey is a model on a server as the headers of its files tell, in one or in
// several, and what of them is here.
type Survey struct {
	Header *gguf.File // merged, if there are several files
	Files  []Surveyed // in order
}

// Surveyed is one file of a Survey.
type Surveyed struct {
	Source  Source
	Bytes   int64
	Missing int64 // bytes of it that are still to be fetched

	header *gguf.File
}

// Bytes is the size of all files.
func (s Survey) Bytes() (n int64) {
	for _, f := range s.Files {
		n += f.Bytes
	}
	return n
}

// Missing is how much of all files is still to be fetched, in bytes, and how
// many files that belongs to.
func (s Survey) Missing() (n int64, files int) {
	for _, f := range s.Files {
		if n += f.Missing; f.Missing > 0 {
			files++
		}
	}
	return n, files
}

// surveyors is how many headers are asked for at once.
const surveyors = 8

// Survey reads the headers of all files of a model, given by its first: of those
// that are whole in dir there, of others on the server. With no dir none is here.
// What does not belong together is refused; errors are those of Fetch.
func (c *Client) Survey(ctx context.Context, src Source, dir string) (Survey, error) {
	return survey(src, dir, func(src Source) (*gguf.File, Remote, error) { return c.Header(ctx, src) })
}

func survey(first Source, dir string, ask func(Source) (*gguf.File, Remote, error)) (Survey, error) {
	look := func(src Source) (Surveyed, error) {
		path := filepath.Join(dir, src.Name())
		if dir != "" {
			if header, bytes, err := readHeader(path); err == nil {
				return Surveyed{src, bytes, 0, header}, nil
			}
		}
		header, remote, err := ask(src)
		if err != nil {
			return Surveyed{}, err
		}
		missing := remote.Bytes
		if dir != "" {
			missing -= partBytes(path, src, remote)
		}
		return Surveyed{src, remote.Bytes, missing, header}, nil
	}
	begin, err := look(first)
	if err != nil {
		return Survey{}, err
	}
	names, err := gguf.ShardNames(first.Name(), begin.header.Shards())
	if err != nil {
		return Survey{}, err
	}
	files, errs := make([]Surveyed, len(names)), make([]error, len(names))
	files[0] = begin
	var all sync.WaitGroup
	room := make(chan struct{}, surveyors)
	for i, name := range names[1:] {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			files[1+i], errs[1+i] = look(first.beside(name))
		})
	}
	all.Wait()
	headers := make([]*gguf.File, len(files))
	for i, f := range files {
		if errs[i] != nil {
			return Survey{}, fmt.Errorf("one of %d files: %w", len(files), errs[i])
		}
		headers[i] = f.header
	}
	merged, err := gguf.Merge(headers)
	if err != nil && slices.ContainsFunc(files, func(f Surveyed) bool { return f.Missing == 0 }) {
		err = fmt.Errorf("%w: %s: %w", ErrMixed, dir, err)
	}
	if err != nil {
		return Survey{}, err
	}
	return Survey{merged, files}, nil
}

// share is one file's part in the model that is fetched.
type share struct {
	bytes   int64 // of the file, known before its first byte; 0 is not known
	here    int64 // bytes of the model's other files that are here
	missing int64 // bytes of them that are still to be fetched
	retries int   // for those that were fetched
}

// fetchShards is Fetch of a model in several files. A file that is missing or of
// another model, and a disk without room for all of them, are found before the
// first byte.
func (c *Client) fetchShards(ctx context.Context, first Source, dir string, o Options) (File, error) {
	failure := c.newDownload(first, dir, o, share{}).failure
	s, err := survey(first, dir, func(src Source) (*gguf.File, Remote, error) {
		return c.newDownload(src, dir, o, share{}).header(ctx)
	})
	if err != nil {
		return File{}, failure(err)
	}
	var fetched File // the sums of all
	missing, _ := s.Missing()
	for _, f := range s.Files {
		missing -= f.Missing
		d := c.newDownload(f.Source, dir, o, share{f.Bytes, s.Bytes() - f.Bytes - missing, missing, fetched.Retries})
		file, err := d.one(ctx)
		if err != nil {
			return File{}, err
		}
		fetched.Downloaded, fetched.Retries = fetched.Downloaded+file.Downloaded, file.Retries
	}
	file, err := Local(filepath.Join(dir, first.Name()))
	if err != nil {
		return File{}, failure(err)
	}
	file.Downloaded, file.Retries = fetched.Downloaded, fetched.Retries
	return file, nil
}

// header reads the header of a file ahead of it, as patiently as the file.
func (d *download) header(ctx context.Context) (header *gguf.File, remote Remote, err error) {
	if err := d.Gate.wait(ctx, 0); err != nil {
		return nil, Remote{}, err
	}
	err = d.repeat(ctx, func() error {
		var err error
		d.do(func() { header, remote, err = d.readHeader(ctx, d.src) })
		return err
	})
	if err != nil {
		return nil, Remote{}, err
	}
	return header, remote, d.Gate.wait(ctx, int(header.DataOffset))
}
