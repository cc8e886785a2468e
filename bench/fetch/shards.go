package fetch

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// Survey describes a model on a server by the headers of its files, and says how
// much of them is here.
//
// All headers are read before the first byte of a model is downloaded. A missing part
// is then reported before the others are fetched, which costs one small request per
// file. The files of a model are one item of a Queue. They are fetched one after the
// other, each with a lock, a part file and a checksum of its own.
type Survey struct {
	Header *gguf.File // merged, if there are several files
	Files  []Surveyed // in order
}

// Surveyed is one file of a Survey.
type Surveyed struct {
	Source  source.Source
	Bytes   int64
	Missing int64 // bytes still to be fetched

	header *gguf.File
}

// Bytes is the size of all files.
func (s Survey) Bytes() (n int64) {
	for _, f := range s.Files {
		n += f.Bytes
	}
	return n
}

// Missing is the number of bytes still to be fetched, and of the files that they
// belong to.
func (s Survey) Missing() (n int64, files int) {
	for _, f := range s.Files {
		if n += f.Missing; f.Missing > 0 {
			files++
		}
	}
	return n, files
}

// surveyors is the number of headers that are requested at the same time.
const surveyors = 8

// Survey reads the headers of all files of a model. The source names the first
// file. Headers of files that are complete in dir are read there, the others on the
// server; an empty dir is no directory. If the model is in the hub's cache and Fetch
// uses it there, so does Survey, and nothing is asked. Files that do not belong together are
// refused. Errors are those of Fetch.
func (c *Client) Survey(ctx context.Context, src source.Source, dir string) (Survey, error) {
	if file, ok := c.Cached(src); ok {
		s := Survey{Header: file.Header}
		for i, path := range file.Paths {
			header, bytes, err := readHeader(path)
			if err != nil {
				return Survey{}, err
			}
			from := src
			if i > 0 {
				from = src.Beside(filepath.Base(path))
			}
			s.Files = append(s.Files, Surveyed{from, bytes, 0, header})
		}
		return s, nil
	}
	return survey(src, dir, func(src source.Source) (*gguf.File, Remote, error) { return c.Header(ctx, src) })
}

func survey(first source.Source, dir string, ask func(source.Source) (*gguf.File, Remote, error)) (Survey, error) {
	look := func(src source.Source) (Surveyed, error) {
		path := src.Place(dir)
		if dir != "" {
			if header, bytes, err := readHeader(path); err == nil && !ofAnotherSource(path, src) {
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
			files[1+i], errs[1+i] = look(first.Beside(name))
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

// share is what a file's download knows of the model's other files.
type share struct {
	bytes   int64 // size of this file; 0 if unknown
	here    int64 // bytes of the other files that are here
	missing int64 // bytes of the other files still to be fetched
	retries int   // for the other files that were fetched
}

// fetchShards fetches a model in several files. A file that is missing or belongs
// to another model, and a disk without room for all files, are found before
// anything is downloaded. Files that replace others are put in place together, once
// all files are complete: before, the others may be a whole model.
func (c *Client) fetchShards(ctx context.Context, first source.Source, dir string, o Options) (File, error) {
	failure := c.newDownload(first, dir, o, share{}).failure
	s, err := survey(first, dir, func(src source.Source) (*gguf.File, Remote, error) {
		return c.newDownload(src, dir, o, share{}).header(ctx)
	})
	if err != nil {
		return File{}, failure(err)
	}
	var fetched File // sums over all files
	missing, _ := s.Missing()
	var held []*download
	defer func() {
		for _, d := range held {
			d.unlock()
		}
	}()
	for _, f := range s.Files {
		missing -= f.Missing
		d := c.newDownload(f.Source, dir, o, share{f.Bytes, s.Bytes() - f.Bytes - missing, missing, fetched.Retries})
		d.together = true
		file, err := d.one(ctx)
		if d.install != nil {
			held = append(held, d)
		}
		if err != nil {
			return File{}, err
		}
		fetched.Downloaded, fetched.Retries = fetched.Downloaded+file.Downloaded, file.Retries
	}
	for _, d := range held {
		if err := d.install(); err != nil {
			return File{}, d.failure(err)
		}
	}
	file, err := Local(first.Place(dir))
	if err != nil {
		return File{}, failure(err)
	}
	file.Downloaded, file.Retries = fetched.Downloaded, fetched.Retries
	return file, nil
}

// header reads the header of the file before its download, with the same retries.
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
