package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"
)

// serve serves files by their base names, with range requests, until its stdin
// ends. It prints its address on the first line. All connections together get
// bytesPerSecond; 0 is no limit.
func serve(files []string, bytesPerSecond float64) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + listener.Addr().String())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
		os.Exit(0)
	}()
	return http.Serve(listener, handler(files, &link{bytesPerSecond: bytesPerSecond}))
}

func handler(files []string, l *link) http.HandlerFunc {
	byName := map[string]string{}
	for _, file := range files {
		byName[filepath.Base(file)] = file
	}
	return func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(byName[path.Base(r.URL.Path)])
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer func() { _ = f.Close() }()
		info, err := f.Stat()
		if err != nil {
			log.Print(err)
			http.Error(w, "cannot be served", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream") // no need to guess from the first bytes
		http.ServeContent(limited{w, l, r.Context()}, r, info.Name(), info.ModTime(), f)
	}
}

// link is a network link that all connections share. It is safe for concurrent
// use.
type link struct {
	bytesPerSecond float64 // 0 is no limit

	mu   sync.Mutex
	free time.Time // when everything so far has passed
}

// slack is how far a link may catch up after a sleep that was too long, as they
// are on a busy machine, or before the first byte.
const slack = 20 * time.Millisecond

// pass waits until n bytes have passed, after those of others.
func (l *link) pass(ctx context.Context, n int) {
	if l.bytesPerSecond <= 0 {
		return
	}
	l.mu.Lock()
	now := time.Now()
	if earliest := now.Add(-slack); l.free.Before(earliest) {
		l.free = earliest
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.bytesPerSecond * float64(time.Second)))
	wait := l.free.Sub(now)
	l.mu.Unlock()
	if wait <= 0 {
		return
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
}

// limited hides the connection's ReadFrom, so that every byte passes the link.
type limited struct {
	http.ResponseWriter
	link *link
	ctx  context.Context
}

func (l limited) Write(b []byte) (int, error) {
	l.link.pass(l.ctx, len(b))
	return l.ResponseWriter.Write(b)
}
