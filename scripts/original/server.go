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
// ends. Its first line of output is its address. All connections share the rate
// bytesPerSecond; 0 means no limit.
func serve(files []string, bytesPerSecond float64) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + listener.Addr().String())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent ends
		os.Exit(0)
	}()
	return http.Serve(listener, handler(files, &link{bytesPerSecond: bytesPerSecond}))
}

// handler serves files by their base names, at the rate of a link.
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
		w.Header().Set("Content-Type", "application/octet-stream") // otherwise ServeContent reads the start to guess
		http.ServeContent(limited{w, l, r.Context()}, r, info.Name(), info.ModTime(), f)
	}
}

// link is a network link that all connections share. It is safe for concurrent
// use.
type link struct {
	bytesPerSecond float64 // 0 means no limit

	mu   sync.Mutex
	free time.Time // when all bytes so far have passed
}

// slack is how much unused time a link may catch up, for example after a sleep that
// took too long on a busy machine.
const slack = 20 * time.Millisecond

// pass waits until n bytes have passed, after the bytes of earlier calls.
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

// limited sends all bytes through a link. It hides the connection's ReadFrom.
type limited struct {
	http.ResponseWriter
	link *link
	ctx  context.Context
}

func (l limited) Write(b []byte) (int, error) {
	l.link.pass(l.ctx, len(b))
	return l.ResponseWriter.Write(b)
}
