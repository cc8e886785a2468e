package fetch

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// Options are the options of one download. The zero Options are valid.
type Options struct {
	Deadline time.Time      // when the file must be here; zero is no deadline
	Gate     *Gate          // can pause the download; may be nil
	Progress func(Progress) // called about once a second and at the end, from the goroutine of Fetch; may be nil
	// TrustUnchanged uses an existing file without reading it again if it has the size
	// and the modification time that it had when it was last verified.
	TrustUnchanged bool

	hooks hooks // of a Queue
}

// hooks let a Queue control a download in progress. All may be nil.
type hooks struct {
	do       func(work func())                  // runs a piece of work: reading, hashing and writing one buffer
	deadline func() time.Time                   // replaces Deadline; no timer enforces it
	waiting  func(until time.Time, after error) // is called before a wait for the next attempt
}

// DefaultReserveBytes are left free for results, logs and other programs.
const DefaultReserveBytes = 256 << 20

// Progress is the progress of a download.
type Progress struct {
	Done, Total    int64   // bytes
	BytesPerSecond float64 // over the last seconds, pauses included
	Retries        int

	link float64 // bytes per second of network and disk, pauses excluded; 0 if unknown
}

const (
	bufferBytes = 256 << 10

	// A download is given up as hopeless only after its rate was measured for some
	// seconds, and only if the rate is far too low, because rates vary.
	hopelessAfter  = 5 * time.Second // of reading, pauses excluded
	hopelessFactor = 1.5             // times the time that is left

	// For this long after a pause, the socket's buffer may still hold data that
	// arrived during the pause.
	heldEcho = 500 * time.Millisecond

	maxAgain    = 2 // times that a download may break off again at the same byte
	maxRestarts = 3 // times that a download may start again from the first byte
)

// Fetch puts a verified copy of a source's file into dir, which is created if it
// does not exist. A local source is used where it is.
//
// An existing file in dir is used if its header is sound and its checksum is
// right. The checksum is compared with the source's, else with the recorded one,
// else with the server's. If the server does not answer, a sound header is
// enough. Another file is fetched again. When that is complete, the one that was there is
// renamed: to NAME.other-HASH if it was fetched from another source, with a hash of that
// source, else to NAME.corrupt-TIME.
//
// A download is written to NAME.part and renamed when its size, checksum and header
// are right. If it is interrupted, the next Fetch resumes it, as long as the file
// on the server is the same. While another process fetches the same file, Fetch
// waits, and then uses that file.
//
// If a model is in several files, the source names the first, and the others are
// beside it. All headers are read before anything is downloaded; then the files
// are fetched in order. Progress and deadline are those of all files together.
//
// Errors are listed at ErrRefused. They hold no secrets.
func (c *Client) Fetch(ctx context.Context, src source.Source, dir string, opts Options) (File, error) {
	if src.Local() {
		return Local(src.Path)
	}
	name := src.Name()
	if err := source.CheckName(name); err != nil {
		return File{}, fmt.Errorf("%w: %v: %w", source.ErrBad, src, err)
	}
	if src.SHA256 != "" && !source.IsSHA256(src.SHA256) {
		return File{}, fmt.Errorf("%w: %q is not a sha256", source.ErrBad, src.SHA256)
	}
	if gguf.IsShard(name) && src.SHA256 != "" {
		return File{}, fmt.Errorf("%w: %v is one of several files, but a sha256 belongs to a single file", source.ErrBad, src)
	}
	if file, ok := c.Cached(src); ok {
		return file, nil
	}
	if !opts.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, opts.Deadline, ErrHopeless)
		defer cancel()
	}
	if gguf.IsShard(name) {
		return c.fetchShards(ctx, src, dir, opts)
	}
	d := c.newDownload(src, dir, opts, share{})
	file, err := d.one(ctx)
	if err != nil {
		return File{}, err
	}
	if _, err := gguf.ShardNames(name, file.Header.Shards()); err != nil {
		return File{}, d.failure(err)
	}
	return file, nil
}

// download is the download of one file.
type download struct {
	*Client
	Options
	src       source.Source
	dir, path string // of the file when it is complete
	pinned    string // the source's SHA256, in lower case
	share     share

	out   *os.File  // the partial file
	have  int64     // bytes in it
	sum   hash.Hash // of these bytes
	state record    // of the file that they belong to; Bytes is 0 before the first answer

	counted *gguf.File // header of a file whose size the server does not say; nil: it does

	downloaded int64 // bytes
	broke      int64 // byte at which the last attempt that brought bytes ended
	again      int   // later attempts in a row that ended there too
	retries    int
	together   bool         // a file that is there is replaced with the model's other files, by install
	install    func() error // puts the complete file in its place; nil: it is there
	unlock     func()       // after install
	replaces   error        // why the file that is there is replaced; nil: none is
	restarts   int          // from the first byte
	last       error        // of the last failed attempt
	at         time.Time    // the meters have counted until here
	shown      meter        // rate with pauses
	reading    meter        // rate of network and disk, without pauses
	held       time.Time    // when the gate last paused the download
	by         time.Time    // the queue's deadline when reading began to count
	told       time.Time    // when progress was last reported
}

func (c *Client) newDownload(src source.Source, dir string, o Options, s share) *download {
	return &download{Client: c, Options: o, src: src, dir: filepath.Dir(src.Place(dir)), path: src.Place(dir),
		pinned: strings.ToLower(src.SHA256), share: s, retries: s.retries}
}

// one fetches the file.
func (d *download) one(ctx context.Context) (File, error) {
	file, err := d.file(ctx)
	if err != nil {
		return File{}, d.failure(err)
	}
	file.Downloaded, file.Retries = d.downloaded, d.retries
	return file, nil
}

// failure adds the file's name to an error, unless that is the host's.
func (d *download) failure(err error) error {
	var host *HostError
	if errors.As(err, &host) && !errors.Is(err, ErrHopeless) {
		return host
	}
	if errors.Is(err, ErrHopeless) && !errors.As(err, new(*HopelessError)) {
		err = &HopelessError{Done: d.done(), Total: d.total(), BytesPerSecond: d.shown.rate, Last: d.last}
	}
	return fmt.Errorf("%s: %w", filepath.Base(d.path), err)
}

// total, done and missing are bytes of all the model's files: their size, what is
// here and what is not. If the size is unknown, total is 0.
func (d *download) total() int64 { return d.missing() + d.done() }
func (d *download) done() int64  { return d.share.here + d.have }
func (d *download) missing() int64 {
	return cmp.Or(d.state.Bytes, d.share.bytes) - d.have + d.share.missing
}

// record describes a file. It is stored beside a partial file, to resume the
// download, and beside a verified file, to verify it again.
type record struct {
	Source    string    `json:"source"` // without secrets
	Bytes     int64     `json:"bytes"`  // of the whole file
	SHA256    string    `json:"sha256,omitempty"`
	Validator string    `json:"validator,omitempty"` // strong ETag or Last-Modified
	ModTime   time.Time `json:"mtime,omitzero"`      // of the verified file
}

// do runs a piece of work, on the thread that the queue chooses.
func (d *download) do(work func()) {
	if d.hooks.do != nil {
		d.hooks.do(work)
		return
	}
	work()
}

func (d *download) deadline() time.Time {
	if d.hooks.deadline != nil {
		return d.hooks.deadline()
	}
	return d.Deadline
}

func (d *download) partPath() string   { return d.path + source.PartSuffix }
func (d *download) statePath() string  { return d.path + source.PartSuffix + ".json" }
func (d *download) recordPath() string { return recordPath(d.path) }

// recordPath is where the record of a verified file is kept.
func recordPath(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".json")
}

// file fetches the file while it holds the lock.
func (d *download) file(ctx context.Context) (File, error) {
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return File{}, err
	}
	unlock, err := lock(ctx, d.path, func() { d.log().Info("another process downloads the same file, waiting", "file", d.path) })
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		// A file in a directory that cannot be written can still be read.
		if file, why, readErr := d.existing(ctx); readErr == nil && why == nil {
			return file, nil
		}
		return File{}, fmt.Errorf("%s cannot be written; choose another directory: %w", d.dir, err)
	case err != nil:
		return File{}, err
	}
	d.unlock = unlock
	defer func() {
		if d.install == nil {
			unlock()
		}
	}()

	file, why, err := d.existing(ctx)
	switch {
	case err == nil && why == nil:
		return file, nil
	case err == nil:
		// Whatever a server says, the file stays until its replacement is complete and verified.
		d.log().Warn("existing file will be replaced", "file", d.path, "reason", why)
		d.replaces = why
	case !errors.Is(err, fs.ErrNotExist):
		return File{}, err
	}
	return d.fetch(ctx)
}

// errOtherSource is a file that was fetched from another source. It may be sound,
// but nothing proves that it is the file that this source names.
var errOtherSource = errors.New("it was fetched from another source")

// existing verifies the file in the directory. If it is wrong, why says what is
// wrong. err is that of the file system; fs.ErrNotExist if there is no file.
func (d *download) existing(ctx context.Context) (file File, why, err error) {
	info, err := os.Stat(d.path)
	if err != nil {
		return File{}, nil, err
	}
	if !info.Mode().IsRegular() {
		return File{}, nil, fmt.Errorf("%s is not a file", d.path)
	}
	header, err := gguf.ReadFile(d.path)
	switch {
	case errors.As(err, new(*fs.PathError)): // a read error says nothing about the content
		return File{}, nil, err
	case err != nil:
		return File{}, err, nil
	}
	known, recordErr := readRecord(d.recordPath())
	unchanged := known.Source == d.src.String() && known.Bytes == info.Size() && known.ModTime.Equal(info.ModTime())
	var other error // where the file came from, if not from this source
	if known.Source != d.src.String() {
		if recordErr == nil {
			other = fmt.Errorf("%w: %s", errOtherSource, known.Source)
		}
		known = record{Source: d.src.String()}
	}
	if d.pinned != "" {
		if known.SHA256 != d.pinned {
			known, unchanged = record{Source: d.src.String(), SHA256: d.pinned}, false
		}
	} else if known.SHA256 == "" {
		remote, err := d.Probe(ctx, d.src)
		switch {
		case err == nil:
			known.Bytes, known.SHA256 = remote.Bytes, remote.SHA256
		case ctx.Err() != nil:
			return File{}, nil, context.Cause(ctx)
		case other == nil:
			d.log().Warn("using an existing file; only its header was verified", "file", d.path, "reason", err)
		}
		if other != nil && known.SHA256 == "" {
			return File{}, other, nil
		}
	}
	if known.Bytes != 0 && known.Bytes != info.Size() {
		return File{}, fmt.Errorf("it has %d bytes instead of %d", info.Size(), known.Bytes), nil
	}
	file = File{Path: d.path, Paths: []string{d.path}, Bytes: info.Size(), Header: header, SHA256: known.SHA256}
	if known.SHA256 == "" || unchanged && d.TrustUnchanged {
		return file, nil, nil
	}
	sum, err := d.hashFile(ctx, d.path)
	if err != nil {
		return File{}, nil, err
	}
	if got := hexSum(sum); got != known.SHA256 {
		return File{}, fmt.Errorf("%w: sha256 %s, expected %s", ErrChecksum, got, known.SHA256), nil
	}
	known.Bytes, known.ModTime = info.Size(), info.ModTime()
	d.keep(known)
	return file, nil, nil
}

// fetch downloads the file until it is complete and right. A complete but wrong
// file is fetched once more from its first byte: the disk may have lost power after
// an earlier download, or a proxy may have damaged the data.
func (d *download) fetch(ctx context.Context) (File, error) {
	if err := d.openPart(ctx); err != nil {
		return File{}, err
	}
	defer d.out.Close()
	defer func() {
		if d.have == 0 { // nothing arrived
			_ = os.Remove(d.partPath())
			_ = os.Remove(d.statePath())
		}
	}()
	for again := false; ; again = true {
		if err := d.transfer(ctx); err != nil {
			return File{}, err
		}
		file, err := d.finish()
		if err == nil || again || !errors.Is(err, errWrong) {
			return file, err
		}
		d.log().Warn("downloaded file is wrong, fetching it again", "file", d.path, "reason", err)
		d.retries++
		if err := d.reset(); err != nil {
			return File{}, err
		}
	}
}

// openPart opens the partial file that an earlier download of this source left,
// or an empty one. It reads the bytes again, because the checksum must be that of
// what is on the disk now.
func (d *download) openPart(ctx context.Context) error {
	out, err := os.OpenFile(d.partPath(), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	d.out = out
	state, stateErr := readRecord(d.statePath())
	info, err := out.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", d.partPath())
	}
	if err == nil {
		if stateErr != nil || state.Source != d.src.String() || info.Size() > state.Bytes {
			err = d.reset()
		} else if d.sum, err = d.hashFile(ctx, d.partPath()); err == nil {
			d.state, d.have = state, info.Size()
			_, err = out.Seek(d.have, io.SeekStart)
		}
	}
	if err != nil {
		_ = out.Close()
	}
	return err
}

// reset discards the partial file's content.
func (d *download) reset() error {
	d.have, d.sum, d.state = 0, sha256.New(), record{}
	if err := os.Remove(d.statePath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.out.Truncate(0); err != nil {
		return err
	}
	_, err := d.out.Seek(0, io.SeekStart)
	return err
}

// transfer makes attempts until the partial file is complete.
func (d *download) transfer(ctx context.Context) error {
	return d.repeat(ctx, func() error { return d.attempt(ctx) })
}

// repeat makes attempts until one succeeds. The number of attempts that bring
// bytes is not limited; it fails after maxTries in a row that bring none.
func (d *download) repeat(ctx context.Context, attempt func() error) error {
	wait := d.newBackOff()
	fruitless := 0
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		before := d.downloaded
		err := attempt()
		if err == nil {
			return struct{}{}, nil
		}
		if context.Cause(ctx) != nil {
			return struct{}{}, backoff.Permanent(context.Cause(ctx))
		}
		d.last = err
		fruitless++
		if d.downloaded > before {
			wait.Reset()
			fruitless = 0
			if d.again++; d.have != d.broke {
				d.again = 0
			}
			d.broke = d.have
		}
		if errors.Is(err, errChanged) { // another file may break off elsewhere
			d.again = 0
		}
		var status *StatusError
		var host *HostError
		var permanent *backoff.PermanentError
		switch {
		case errors.As(err, &permanent):
			err = backoff.Permanent(d.giveUp(permanent.Err))
		case d.again >= maxAgain:
			err = backoff.Permanent(fmt.Errorf("%w: the server breaks off at byte %d of %d each time, and cannot go on from there", ErrUnavailable, d.have, d.state.Bytes))
		case errors.As(err, &host) && (fruitless >= maxTries || d.downloaded == 0 && d.givenUp(err, fruitless)):
			err = backoff.Permanent(d.giveUp(err))
		case fruitless >= maxTries || d.downloaded == 0 && d.givenUp(err, fruitless) || d.restarts > maxRestarts:
			err = backoff.Permanent(fmt.Errorf("%w after %d retries: %w", ErrUnavailable, d.retries, err))
		case errors.As(err, &status):
			if by := d.deadline(); !by.IsZero() && status.RetryAfter > time.Until(by) {
				err = backoff.Permanent(&HopelessError{Done: d.done(), Total: d.total(), Left: time.Until(by),
					Last: fmt.Errorf("%w, try again in %v", err, status.RetryAfter)})
			}
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, wait time.Duration) {
		d.retries++
		if d.hooks.waiting != nil {
			d.hooks.waiting(time.Now().Add(wait), err)
		}
		d.logRetry(fruitless, err, "download interrupted, trying again", "file", d.path, "have_bytes", d.have, "retry_in_s", wait.Round(time.Millisecond).Seconds())
	}))
	return err
}

// attempt makes one request for the missing bytes.
func (d *download) attempt(ctx context.Context) error {
	if d.state.Bytes > 0 && d.have == d.state.Bytes {
		return nil
	}
	// Without validator and checksum nothing shows that the file is still the same.
	if d.have > 0 && d.state.Validator == "" && d.state.SHA256 == "" && d.pinned == "" {
		d.restarts++
		if err := d.reset(); err != nil {
			return backoff.Permanent(err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	span := ""
	if d.have > 0 {
		span = fmt.Sprintf("bytes=%d-", d.have)
	}
	resp, remote, err := d.get(ctx, d.src, span, d.state.Validator)
	var status *StatusError
	if errors.As(err, &status) && status.Status == http.StatusRequestedRangeNotSatisfiable && d.have > 0 {
		return d.restart(fmt.Errorf("%w: it no longer has the bytes after %d", errChanged, d.have))
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if remote.Bytes == 0 && d.counted == nil {
		_ = resp.Body.Close()
		if d.counted, _, err = d.readHeader(ctx, d.src); err != nil {
			return err
		}
		return d.attempt(ctx)
	}
	if remote.Bytes == 0 {
		remote.Bytes = d.counted.Size()
	} else {
		d.counted = nil
	}

	now := record{Source: d.src.String(), Bytes: remote.Bytes, SHA256: remote.SHA256, Validator: remote.validator}
	if start, _ := contentRange(resp.Header); resp.StatusCode == http.StatusPartialContent && (start != d.have || now != d.state) {
		return d.restart(fmt.Errorf("%w between two requests", errChanged))
	}
	if resp.StatusCode == http.StatusOK {
		if d.have > 0 {
			d.log().Warn("the server sends the file again from the first byte", "file", d.path, "have_bytes", d.have, "changed", now != d.state)
			d.restarts++
		}
		if err := d.begin(now); err != nil {
			return backoff.Permanent(err)
		}
	} else if err := d.checkDisk(); err != nil {
		return backoff.Permanent(err)
	}
	return d.receive(ctx, cancel, resp.Body)
}

// restart discards the partial file because of why, which it returns.
func (d *download) restart(why error) error {
	d.restarts++
	if err := d.reset(); err != nil {
		return backoff.Permanent(err)
	}
	return why
}

// begin prepares for the first byte of a file that the server describes so.
func (d *download) begin(now record) error {
	if want := d.pinned; want != "" && now.SHA256 != "" && want != now.SHA256 {
		return fmt.Errorf("%w: the server has sha256 %s, expected %s", ErrChecksum, now.SHA256, want)
	}
	if err := d.reset(); err != nil {
		return err
	}
	d.state = now
	if err := d.checkDisk(); err != nil {
		return err
	}
	return writeRecord(d.statePath(), now)
}

func (d *download) checkDisk() error {
	got, err := d.freeBytes(d.dir)
	if err != nil {
		return err
	}
	reserve := d.reserve()
	if need := d.missing(); need > got-reserve {
		return &DiskError{Dir: d.dir, Need: need, Reserve: reserve, Free: got}
	}
	return nil
}

// trailing is the number of bytes that may follow the last tensor of a file whose size the
// server does not say.
const trailing = 1 << 20

// receive appends a body to the partial file until the file is complete. If the server
// does not say the file's size, the file is complete when the body ends, but not
// before its last tensor.
func (d *download) receive(ctx context.Context, cancel context.CancelCauseFunc, body io.Reader) error {
	if d.at.IsZero() {
		d.at = time.Now()
	}
	stallTime := d.stallTime()
	stall := time.AfterFunc(stallTime, func() { cancel(fmt.Errorf("%w for %v", errStalled, stallTime)) })
	defer stall.Stop()
	buf := make([]byte, bufferBytes)
	most := d.state.Bytes
	if d.counted != nil {
		most += trailing
	}
	for d.have < most {
		var n int
		var readErr, err error
		d.do(func() {
			stall.Reset(stallTime)
			n, readErr = body.Read(buf[:min(bufferBytes, most-d.have)])
			stall.Stop()
			if d.have > 0 || bytes.HasPrefix([]byte("GGUF"), buf[:min(n, 4)]) {
				_, err = d.out.Write(buf[:n])
				d.sum.Write(buf[:n])
				return
			}
			// It is not a model but perhaps an HTML page: the other bytes are not needed.
			_, err = gguf.Read(bytes.NewReader(buf[:n]), d.state.Bytes, gguf.DefaultLimits)
			err = errors.Join(d.reset(), fmt.Errorf("%v: %w", d.src, err))
		})
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
			err = fmt.Errorf("%w: %w", ErrNoDisk, err)
		}
		if err != nil {
			return backoff.Permanent(err)
		}
		d.have += int64(n)
		d.downloaded += int64(n)

		read := time.Now()
		// Bytes that arrived during a pause say nothing about the link's rate.
		if read.Sub(d.held) >= heldEcho {
			d.reading.add(n, read.Sub(d.at))
		}
		gateErr := d.Gate.wait(ctx, n)
		now := time.Now()
		if now.Sub(read) > 5*time.Millisecond {
			d.held = now
		}
		d.shown.add(n, now.Sub(d.at))
		d.at = now
		d.tell(now)
		if err := d.hopeless(now); err != nil {
			return backoff.Permanent(err)
		}
		switch {
		case d.counted != nil && errors.Is(readErr, io.EOF) && d.have >= d.counted.DataEnd():
			d.state.Bytes = d.have
			return nil
		case d.counted != nil && d.have == most:
			return backoff.Permanent(fmt.Errorf("%v: %w: the server sends more bytes than the %d that the header says", d.src, gguf.ErrCorrupt, d.state.Bytes))
		case d.counted == nil && d.have == d.state.Bytes:
		case gateErr != nil:
			return gateErr
		case errors.Is(readErr, io.EOF), errors.Is(readErr, io.ErrUnexpectedEOF):
			return fmt.Errorf("%v: the connection ended at byte %d of %d", d.src, d.have, d.state.Bytes)
		case readErr != nil && context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case readErr != nil:
			return fmt.Errorf("%v: %w", d.src, d.clean(readErr))
		}
	}
	return nil
}

func (d *download) tell(now time.Time) {
	if d.Progress != nil && (now.Sub(d.told) >= time.Second || d.have >= d.state.Bytes) {
		d.told = now
		d.Progress(Progress{d.done(), d.total(), d.shown.rate, d.retries, d.reading.rate})
	}
}

// hopeless returns an error if the deadline is out of reach at the rate of network
// and disk, without the pauses.
func (d *download) hopeless(now time.Time) error {
	by := d.deadline()
	if d.hooks.deadline != nil && !by.Equal(d.by) {
		// Somebody waits from now on. The rate at low priority, beside a running test, does not count.
		d.by, d.reading = by, meter{}
	}
	if by.IsZero() || d.reading.total < hopelessAfter {
		return nil
	}
	left := by.Sub(now)
	needs := float64(d.missing()) / d.reading.rate
	if needs <= hopelessFactor*left.Seconds() {
		return nil
	}
	const longest = 1000 * 24 * time.Hour
	return &HopelessError{Done: d.done(), Total: d.total(), BytesPerSecond: d.reading.rate, Left: left, Last: d.last,
		Needs: time.Duration(min(needs, longest.Seconds()) * float64(time.Second))}
}

// errWrong is the error of a complete file with wrong content.
var errWrong = errors.New("the downloaded file is wrong")

// finish verifies the complete partial file and renames it, or leaves that to install.
func (d *download) finish() (File, error) {
	sum, want := hexSum(d.sum), d.pinned
	if want == "" {
		want = d.state.SHA256
	}
	if want != "" && sum != want {
		return File{}, fmt.Errorf("%w: %v: %w: sha256 %s, expected %s", errWrong, d.src, ErrChecksum, sum, want)
	}
	header, err := gguf.ReadFile(d.partPath())
	if err != nil && want == "" {
		return File{}, fmt.Errorf("%w: %v: %w", errWrong, d.src, err)
	}
	if err != nil {
		return File{}, fmt.Errorf("%v: the published file is bad: %w", d.src, err)
	}
	info, err := d.out.Stat()
	if err != nil {
		return File{}, err
	}
	if err := d.out.Close(); err != nil {
		return File{}, err
	}
	put := func() error { return d.put(sum, info) }
	if _, err := os.Lstat(d.path); err == nil && d.together {
		d.install = put
	} else if err := put(); err != nil {
		return File{}, err
	}
	return File{Path: d.path, Paths: []string{d.path}, Bytes: info.Size(), Header: header, SHA256: sum}, nil
}

// put renames the complete and verified partial file to the file's name.
func (d *download) put(sum string, info fs.FileInfo) error {
	// There is no fsync: it would write tens of gigabytes to the disk beside a running
	// test. After a power failure, the record's checksum shows the damage.
	if err := d.moveAside(); err != nil {
		return err
	}
	if err := os.Rename(d.partPath(), d.path); err != nil {
		return err
	}
	d.state.SHA256, d.state.ModTime = sum, info.ModTime()
	d.keep(d.state)
	if err := os.Remove(d.statePath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// moveAside gives a file that is not the source's another name, just before it is
// replaced. One from another source may be good. At most one of each source is kept.
func (d *download) moveAside() error {
	if d.replaces == nil {
		return nil
	}
	aside := d.path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000Z")
	if known, err := readRecord(d.recordPath()); err == nil && known.Source != d.src.String() {
		aside = fmt.Sprintf("%s.other-%.4x", d.path, sha256.Sum256([]byte(known.Source)))
	}
	if err := os.Rename(d.path, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d.log().Warn("existing file moved aside", "file", d.path, "moved_to", aside, "reason", d.replaces)
	return nil
}

// keep stores the record of a verified file. Without it, the next Fetch verifies
// the file again.
func (d *download) keep(r record) {
	if err := writeRecord(d.recordPath(), r); err != nil {
		d.log().Debug("verified file not recorded", "file", d.path, "reason", err)
	}
}

func writeRecord(path string, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, append(text, '\n'), 0o644)
}

// readRecord reads a record of at most 64 KiB. Its content is not trusted.
func readRecord(path string) (record, error) {
	f, err := os.Open(path)
	if err != nil {
		return record{}, err
	}
	defer f.Close()
	var r record
	err = json.NewDecoder(io.LimitReader(f, 64<<10)).Decode(&r)
	if err == nil && (r.Bytes < 0 || r.SHA256 != "" && !source.IsSHA256(r.SHA256)) {
		err = errors.New("not a record of a download")
	}
	if err != nil {
		return record{}, result.AtPath(path, err)
	}
	r.SHA256 = strings.ToLower(r.SHA256)
	return r, nil
}

// hashFile computes the checksum of a file. The gate can pause it.
func (d *download) hashFile(ctx context.Context, path string) (hash.Hash, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum, buf := sha256.New(), make([]byte, bufferBytes)
	for {
		var n int
		d.do(func() {
			n, err = f.Read(buf)
			sum.Write(buf[:n])
		})
		if errors.Is(err, io.EOF) {
			return sum, nil
		}
		if err != nil {
			return nil, err
		}
		if err := d.Gate.wait(ctx, n); err != nil {
			return nil, err
		}
	}
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// meter measures a rate, averaged over the last seconds.
type meter struct {
	rate  float64       // bytes per second
	total time.Duration // all the time that was measured

	bytes int           // since the last update of rate
	time  time.Duration // since then
}

const (
	meterStep   = 250 * time.Millisecond
	meterWindow = 5 * time.Second // time constant of the average
)

func (m *meter) add(n int, t time.Duration) {
	m.bytes, m.time = m.bytes+n, m.time+t
	m.total += t
	if m.time < meterStep {
		return
	}
	now := float64(m.bytes) / m.time.Seconds()
	weight := -math.Expm1(-m.time.Seconds() / meterWindow.Seconds())
	if m.total == m.time { // the first step
		weight = 1
	}
	m.rate += weight * (now - m.rate)
	m.bytes, m.time = 0, 0
}
