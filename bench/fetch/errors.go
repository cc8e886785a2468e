package fetch

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/dustin/go-humanize"
)

// Reasons why a file could not be fetched, for errors.Is. There are more:
// ErrNotFound, source.ErrBad, the errors of package gguf (the server sent
// something other than a model), fs.ErrPermission and syscall.EROFS (the directory
// cannot be written), and the cause of the context.
var (
	ErrRefused     = errors.New("the server refuses access") // 401, 403
	ErrUnavailable = errors.New("the download failed")       // after all retries
	ErrChecksum    = errors.New("checksum mismatch")
	ErrMixed       = errors.New("files in the directory do not belong to the model's other files")
	ErrNoDisk      = errors.New("not enough disk space")
	ErrHopeless    = errors.New("the download cannot finish in time")
)

// ErrEncoded is the error of a server that compresses the file, although it was asked
// not to. Then neither sizes nor ranges are those of the file.
var ErrEncoded = errors.New("the server compresses the file")

// ErrReserve is the error of a file for which there is room, but only in the part of the
// disk that must stay free. It comes with ErrNoDisk.
var ErrReserve = errors.New("the file fits only into the disk's reserve")

// HostError is the error of a host that gives no answer: it cannot be found or
// connected to, or it ends or delays the connection. It is ErrUnavailable.
type HostError struct {
	Host string // with its port, if the address has one
	Err  error
}

func (e *HostError) Error() string {
	what := "does not answer"
	if unreached(e.Err) {
		what = "cannot be reached"
	}
	why, proxied := strings.CutPrefix(e.Err.Error(), "proxyconnect tcp: ")
	var dns *net.DNSError
	why = strings.TrimPrefix(why, "dial tcp "+e.Host+": ")
	switch {
	case proxied:
		what += " through the proxy"
	case errors.As(e.Err, &dns):
		why = dns.Err // without the address of the name server
	}
	return fmt.Sprintf("%s %s: %s", e.Host, what, why)
}

// Unwrap returns ErrUnavailable and the cause.
func (e *HostError) Unwrap() []error { return []error{ErrUnavailable, e.Err} }

// errChanged is the error of a file that changed after a part of it was fetched.
var errChanged = errors.New("the file changed on the server")

// errStalled is the error of a server that stopped sending.
var errStalled = errors.New("no data arrived")

// StatusError is a server's answer that is not the file. It is ErrNotFound (404,
// 410), ErrRefused (401, 403) or neither.
type StatusError struct {
	Status     int           // of HTTP
	URL        string        // without secrets
	Reason     string        // in the server's words; empty if it gave none
	Hint       string        // what the user can do; may be empty
	RetryAfter time.Duration // the wait that the server asks for; 0 if it does not
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s: %d %s", e.URL, e.Status, strings.ToLower(http.StatusText(e.Status)))
	if e.Reason != "" {
		s += " (" + e.Reason + ")"
	}
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// Is implements errors.Is for ErrNotFound and ErrRefused.
func (e *StatusError) Is(kind error) bool {
	switch e.Status {
	case http.StatusNotFound, http.StatusGone:
		return kind == ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return kind == ErrRefused
	}
	return false
}

// As implements errors.As for package backoff, which thereby waits for RetryAfter.
func (e *StatusError) As(target any) bool {
	after, ok := target.(**backoff.RetryAfterError)
	if ok = ok && e.RetryAfter > 0; ok {
		*after = &backoff.RetryAfterError{Duration: e.RetryAfter}
	}
	return ok
}

// temporary reports whether the same request may succeed later.
func (e *StatusError) temporary() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusRequestedRangeNotSatisfiable:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return e.Status >= 500
}

// DiskError is the error of a file system without room for a file. It is
// ErrNoDisk, and ErrReserve if less reserve would help.
type DiskError struct {
	Dir     string
	Need    int64 // bytes still to be written
	Reserve int64 // bytes that must stay free
	Free    int64 // free bytes
}

func (e *DiskError) Error() string {
	return fmt.Sprintf("%v: %s has %s free; %s are needed and %s must stay free",
		ErrNoDisk, e.Dir, size(e.Free), size(e.Need), size(e.Reserve))
}

// Is implements errors.Is for ErrNoDisk and ErrReserve.
func (e *DiskError) Is(kind error) bool {
	return kind == ErrNoDisk || kind == ErrReserve && e.Need <= e.Free
}

// HopelessError is the error of a download that does not finish before its
// deadline. It is ErrHopeless.
type HopelessError struct {
	Done, Total    int64 // bytes; Total is 0 if unknown
	BytesPerSecond float64
	Needs          time.Duration // time for the rest at this rate; 0 if unknown
	Left           time.Duration // until the deadline
	Last           error         // of the last failed attempt; nil if none failed
}

func (e *HopelessError) Error() string {
	total := "an unknown size"
	if e.Total > 0 {
		total = size(e.Total)
	}
	s := fmt.Sprintf("%v: %s of %s arrived", ErrHopeless, size(e.Done), total)
	if e.Needs > 0 {
		s += fmt.Sprintf("; the rest needs %v at %s/s", e.Needs.Round(time.Second), size(int64(e.BytesPerSecond)))
	}
	if e.Needs > 0 {
		s += fmt.Sprintf(", but only %v are left", e.Left.Round(time.Second))
	} else if e.Left > 0 {
		s += fmt.Sprintf("; %v are left", e.Left.Round(time.Second))
	}
	if e.Last != nil {
		s += fmt.Sprintf(" (last failure: %v)", e.Last)
	}
	return s
}

// Unwrap returns ErrHopeless and the last failure.
func (e *HopelessError) Unwrap() []error {
	if e.Last == nil {
		return []error{ErrHopeless}
	}
	return []error{ErrHopeless, e.Last}
}

// size formats a number of bytes.
func size(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }
