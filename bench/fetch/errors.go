package fetch

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/dustin/go-humanize"
)

// Why a file could not be had, for errors.Is. Further ones: ErrNotFound,
// ErrSource, those of package gguf (the server sent something else than a
// model), fs.ErrPermission and syscall.EROFS (the directory cannot be written),
// and the cause of the context.
var (
	ErrRefused     = errors.New("the server refuses access")     // 401, 403
	ErrUnavailable = errors.New("the download does not succeed") // after every retry
	ErrChecksum    = errors.New("checksum mismatch")
	ErrMixed       = errors.New("files that are here do not go with the model's others")
	ErrNoDisk      = errors.New("not enough disk space")
	ErrHopeless    = errors.New("the download cannot end in time")
)

// errChanged is a file that is not the one of which a part is here.
var errChanged = errors.New("the file changed on the server")

// errStalled is a server that stopped sending.
var errStalled = errors.New("no byte arrived")

// StatusError is an answer of a server that is not the file. It is ErrNotFound
// (404, 410), ErrRefused (401, 403) or neither.
type StatusError struct {
	Status     int           // of HTTP
	URL        string        // without its secrets
	Reason     string        // in the server's words; empty when it gave none
	Hint       string        // what can be done; empty when nothing is known
	RetryAfter time.Duration // as the server asks; 0 when it does not
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

// Is makes a StatusError one of the kinds above.
func (e *StatusError) Is(kind error) bool {
	switch e.Status {
	case http.StatusNotFound, http.StatusGone:
		return kind == ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return kind == ErrRefused
	}
	return false
}

// As tells the back-off how long the server wants to be left alone.
func (e *StatusError) As(target any) bool {
	after, ok := target.(**backoff.RetryAfterError)
	if ok = ok && e.RetryAfter > 0; ok {
		*after = &backoff.RetryAfterError{Duration: e.RetryAfter}
	}
	return ok
}

// temporary is whether the same request may be answered later.
func (e *StatusError) temporary() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusRequestedRangeNotSatisfiable:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return e.Status >= 500
}

// DiskError is a file system without room for a file. It is ErrNoDisk.
type DiskError struct {
	Dir     string
	Need    int64 // bytes still to be written
	Reserve int64 // bytes that are to stay free
	Free    int64 // bytes there are
}

func (e *DiskError) Error() string {
	return fmt.Sprintf("%v: %s has %s free, %s are needed and %s are kept free",
		ErrNoDisk, e.Dir, size(e.Free), size(e.Need), size(e.Reserve))
}

// Unwrap makes it an ErrNoDisk.
func (e *DiskError) Unwrap() error { return ErrNoDisk }

// HopelessError is a download that does not end before its deadline. It is
// ErrHopeless.
type HopelessError struct {
	Done, Total    int64 // bytes; Total is 0 when not known
	BytesPerSecond float64
	Needs          time.Duration // at this rate; 0 when not known
	Left           time.Duration // until the deadline
	Last           error         // what went wrong last, if anything did
}

func (e *HopelessError) Error() string {
	s := fmt.Sprintf("%v: %s of %s are here", ErrHopeless, size(e.Done), size(e.Total))
	if e.Needs > 0 {
		s += fmt.Sprintf(", the rest takes %v at %s/s", e.Needs.Round(time.Second), size(int64(e.BytesPerSecond)))
	}
	s += fmt.Sprintf(", %v are left", e.Left.Round(time.Second))
	if e.Last != nil {
		s += fmt.Sprintf(" (last: %v)", e.Last)
	}
	return s
}

// Unwrap makes it an ErrHopeless, and what went wrong last.
func (e *HopelessError) Unwrap() []error {
	if e.Last == nil {
		return []error{ErrHopeless}
	}
	return []error{ErrHopeless, e.Last}
}

func size(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }
