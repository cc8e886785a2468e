package fetch

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// Client gets model files. The zero Client works; its methods may be called
// from any goroutine once its fields are set.
type Client struct {
	Token     string                                  // of the hub; sent to the hub's host and to no other
	Hub       string                                  // address of the hub; empty is DefaultHub
	UserAgent string                                  // empty is Go's
	Transport http.RoundTripper                       // nil is one with proxies from the environment and short time-outs
	FreeBytes func(dir string) (bytes int64, _ error) // nil asks the file system
	Log       *slog.Logger                            // retries, waits, files moved aside, without secrets; nil is silence
	Brisk     bool                                    // a host that no connection is made to is given up after two short tries

	patience time.Duration // tests shorten stallTime and firstWait to this; 0 does not
}

// Remote is what a server says about a file before sending it.
type Remote struct {
	Bytes  int64  // of the file
	SHA256 string // 64 hexadecimal digits in lower case; empty when the server does not say

	validator string // strong ETag or Last-Modified: parts of the same file have the same
}

// Probe asks for the size and checksum of a file, with retries. It asks for the
// first byte, since addresses signed for GET refuse HEAD. Errors are those of
// Fetch.
func (c *Client) Probe(ctx context.Context, src Source) (Remote, error) {
	return retry(ctx, c, src, func() (Remote, error) {
		resp, remote, err := c.get(ctx, src, "bytes=0-0", "")
		if err != nil {
			return Remote{}, err
		}
		_ = resp.Body.Close()
		return remote, nil
	})
}

// Header reads the header of a file that is not here, in one request for its
// first part. Errors are those of Fetch.
func (c *Client) Header(ctx context.Context, src Source) (*gguf.File, Remote, error) {
	var remote Remote
	header, err := retry(ctx, c, src, func() (header *gguf.File, err error) {
		header, remote, err = c.readHeader(ctx, src)
		return header, err
	})
	return header, remote, err
}

// readHeader is one attempt of Header. Errors that a repetition cannot mend are
// backoff's permanent ones.
func (c *Client) readHeader(ctx context.Context, src Source) (*gguf.File, Remote, error) {
	limits := gguf.DefaultLimits
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errStalled)
	defer cancel()
	resp, remote, err := c.get(ctx, src, fmt.Sprintf("bytes=0-%d", limits.HeaderBytes-1), "")
	if err != nil {
		return nil, Remote{}, err
	}
	defer resp.Body.Close()
	body := &failing{r: resp.Body}
	header, err := gguf.Read(body, remote.Bytes, limits)
	switch {
	case err != nil && body.err != nil: // a header that is whole needs nothing after it
		return nil, Remote{}, fmt.Errorf("%v: %w", src, c.clean(body.err))
	case err != nil:
		return nil, Remote{}, backoff.Permanent(fmt.Errorf("%v: %w", src, err))
	}
	return header, remote, nil
}

// failing keeps the error that ended a stream, to tell it from one about what
// the stream held.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

const (
	maxTries     = 6                // without a single new byte, about 20 s with the waits between them
	firstWait    = time.Second / 2  // doubled at every try, with jitter
	longestWait  = 10 * time.Second //
	stallTime    = 10 * time.Second // without a byte
	maxRedirects = 10

	briskTries = 2 // of a host that no connection is made to
	briskDial  = 3 * time.Second
)

// givenUp is whether a host was tried often enough, for a Brisk client.
func (c *Client) givenUp(err error, tries int) bool {
	return c.Brisk && tries >= briskTries && unreached(err)
}

// unreached is an error of making a connection.
func unreached(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && (e.Op == "dial" || e.Op == "proxyconnect")
}

// logRetry says that a request is repeated: of several tries in a row once, but
// to who asks for more. What a Brisk client gives up at once has an error that
// says it.
func (c *Client) logRetry(tries int, err error, message string, args ...any) {
	level := slog.LevelDebug
	if tries <= 1 && !(c.Brisk && unreached(err)) {
		level = slog.LevelWarn
	}
	c.log().Log(context.Background(), level, message, append(args, "reason", err)...)
}

func (c *Client) newBackOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.Multiplier, b.MaxInterval = firstWait, 2, longestWait
	if c.patience > 0 {
		b.InitialInterval, b.MaxInterval = c.patience, c.patience
	}
	return b
}

func (c *Client) stallTime() time.Duration {
	if c.patience > 0 {
		return c.patience
	}
	return stallTime
}

// retry is for requests without state; a download does its own.
func retry[T any](ctx context.Context, c *Client, src Source, ask func() (T, error)) (T, error) {
	tries := 0
	got, err := backoff.Retry(ctx, func() (T, error) {
		got, err := ask()
		if tries++; c.givenUp(err, tries) {
			err = backoff.Permanent(err)
		}
		return got, err
	}, backoff.WithBackOff(c.newBackOff()), backoff.WithMaxTries(maxTries), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, wait time.Duration) {
			c.logRetry(tries, err, "trying again", "model", src.String(), "wait", wait.Round(time.Millisecond))
		}))
	var permanent *backoff.PermanentError // left in place by the library at the last try
	if errors.As(err, &permanent) {
		err = permanent.Err
	}
	return got, err
}

// get asks for a range of a file, in the form of the Range header, under the
// condition that it still has the validator, where one is given. The status of
// the answer is 200 or 206 and its size known. Errors that a repetition cannot
// mend are backoff's permanent ones.
func (c *Client) get(ctx context.Context, src Source, span, validator string) (*http.Response, Remote, error) {
	hub, err := url.Parse(c.hub())
	if err != nil || hub.Host == "" {
		return nil, Remote{}, backoff.Permanent(fmt.Errorf("%w: %s is not the address of a hub", ErrSource, bare(c.hub())))
	}
	from, err := src.address(hub)
	if err != nil {
		return nil, Remote{}, backoff.Permanent(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), http.NoBody)
	if err != nil {
		return nil, Remote{}, backoff.Permanent(c.clean(err))
	}
	req.Header.Set("Accept-Encoding", "identity")
	if span != "" {
		req.Header.Set("Range", span)
		if validator != "" {
			req.Header.Set("If-Range", validator)
		}
	}
	if c.UserAgent != "" {
		req.Header.Set("User-Agent", c.UserAgent)
	}

	linked := linked{hub: hub}
	client := http.Client{
		Transport: &tokenTransport{c.transport(), hub, c.Token},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			linked.look(via[len(via)-1].URL, req.Response.Header)
			req.Header.Del("Referer") // may hold the query of a signed address
			if len(via) >= maxRedirects {
				return backoff.Permanent(fmt.Errorf("more than %d redirects", maxRedirects))
			}
			if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
				return backoff.Permanent(fmt.Errorf("redirected from https to %s://%s", req.URL.Scheme, req.URL.Host))
			}
			return nil
		},
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, Remote{}, c.transportError(ctx, src, err)
	}
	linked.look(resp.Request.URL, resp.Header)
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		defer resp.Body.Close()
		failure := c.statusError(resp)
		if !failure.temporary() {
			return nil, Remote{}, backoff.Permanent(failure)
		}
		return nil, Remote{}, failure
	}
	remote := Remote{SHA256: linked.sha256, validator: strongValidator(resp.Header)}
	remote.Bytes = fullSize(resp)
	if remote.Bytes < 0 {
		remote.Bytes = linked.bytes
	}
	switch {
	case remote.Bytes <= 0:
		err = fmt.Errorf("%v: the server does not say how large the file is, or that it is empty", src)
	case linked.bytes > 0 && linked.bytes != remote.Bytes:
		err = fmt.Errorf("%v: the hub says that the file has %d bytes, %s says %d", src, linked.bytes, resp.Request.URL.Host, remote.Bytes)
	}
	if err != nil {
		_ = resp.Body.Close()
		return nil, Remote{}, backoff.Permanent(err)
	}
	return resp, remote, nil
}

// linked is what the hub says of a file when it redirects to where it lies:
// checksum and size in headers of its own. Other hosts are not asked, their
// entity tags may be anything.
type linked struct {
	hub    *url.URL
	sha256 string
	bytes  int64
}

func (l *linked) look(from *url.URL, h http.Header) {
	if !sameOrigin(from, l.hub) {
		return
	}
	for _, name := range []string{"X-Linked-Etag", "Etag"} {
		if sum := strings.Trim(h.Get(name), `"`); isSHA256(sum) {
			l.sha256 = strings.ToLower(sum)
			break
		}
	}
	if n, err := strconv.ParseInt(h.Get("X-Linked-Size"), 10, 64); err == nil && n > 0 {
		l.bytes = n
	}
}

func isSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32
}

// strongValidator is what If-Range accepts, RFC 9110 section 13.1.5.
func strongValidator(h http.Header) string {
	if tag := h.Get("Etag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return h.Get("Last-Modified")
}

// fullSize is the size of the whole file in bytes, -1 when the answer does not say.
func fullSize(resp *http.Response) int64 {
	if resp.StatusCode == http.StatusOK {
		return resp.ContentLength
	}
	_, size := contentRange(resp.Header)
	return size
}

// contentRange reads where a partial answer starts and how large the whole is,
// in bytes; -1 is unknown.
func contentRange(h http.Header) (start, size int64) {
	span, whole, _ := strings.Cut(strings.TrimPrefix(h.Get("Content-Range"), "bytes "), "/")
	first, _, _ := strings.Cut(span, "-")
	number := func(s string) int64 {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			return -1
		}
		return int64(n)
	}
	return number(first), number(whole)
}

// tokenTransport adds the token to requests to the hub and to no others: here,
// since headers set on a request may travel along redirects.
type tokenTransport struct {
	http.RoundTripper
	hub   *url.URL
	token string
}

func (t *tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.token != "" && sameOrigin(req.URL, t.hub) {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+t.token)
	}
	return t.RoundTripper.RoundTrip(req)
}

var (
	defaultTransport = sync.OnceValue(func() http.RoundTripper { return newTransport(10 * time.Second) })
	briskTransport   = sync.OnceValue(func() http.RoundTripper { return newTransport(briskDial) })
)

// newTransport waits so long for a connection. One large body at a time gains
// nothing from HTTP/2 and pays for its flow control.
func newTransport(dial time.Duration) http.RoundTripper {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dial}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 15 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		DisableCompression:    true,
		Protocols:             protocols,
	}
}

func (c *Client) transport() http.RoundTripper {
	if c.Transport != nil {
		return c.Transport
	}
	if c.Brisk {
		return briskTransport()
	}
	return defaultTransport()
}

func (c *Client) hub() string {
	if c.Hub != "" {
		return c.Hub
	}
	return DefaultHub
}

func (c *Client) log() *slog.Logger {
	if c.Log != nil {
		return c.Log
	}
	return slog.New(slog.DiscardHandler)
}

// statusError reads an answer that is not the file.
func (c *Client) statusError(resp *http.Response) *StatusError {
	u := resp.Request.URL
	e := &StatusError{Status: resp.StatusCode, URL: bare(u.String()), RetryAfter: retryAfter(resp.Header)}
	reason := resp.Header.Get("X-Error-Code") // the hub's
	if message := resp.Header.Get("X-Error-Message"); message != "" {
		reason = strings.TrimPrefix(reason+": "+message, ": ")
	}
	e.Reason = c.hide(reason[:min(len(reason), 200)])
	switch {
	case e.Status == http.StatusNotFound:
		e.Hint = "no such file there; check the repository, the file name and the revision"
	case !e.Is(ErrRefused):
	case resp.Header.Get("X-Error-Code") == "GatedRepo":
		e.Hint = "the repository is gated; accept its terms on the hub and set HF_TOKEN"
	case c.Token == "":
		e.Hint = "private, gated or no such repository; set HF_TOKEN if you have access"
	default:
		e.Hint = "HF_TOKEN was not sent there or gives no access"
	}
	return e
}

// retryAfter reads a header of seconds or a date, RFC 9110 section 10.2.3.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// transportError is an error of a request: without secrets, the caller's own
// cause where the context ended, and permanent where repeating is no use.
func (c *Client) transportError(ctx context.Context, src Source, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var permanent *backoff.PermanentError
	var certificate *tls.CertificateVerificationError
	failure := fmt.Errorf("%v: %w", src, c.clean(err))
	if errors.As(err, &permanent) || errors.As(err, &certificate) {
		return backoff.Permanent(failure)
	}
	return failure
}

// clean takes the secrets out of an error's text and keeps what errors.Is sees.
func (c *Client) clean(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Err
	}
	return &cleaned{c.hide(err.Error()), err}
}

func (c *Client) hide(text string) string {
	if c.Token != "" {
		text = strings.ReplaceAll(text, c.Token, "***")
	}
	return redact(text)
}

type cleaned struct {
	text string
	err  error
}

func (e *cleaned) Error() string { return e.text }
func (e *cleaned) Unwrap() error { return e.err }
