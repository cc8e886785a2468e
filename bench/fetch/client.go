package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// DefaultHub is the model hub that hf: sources are fetched from.
const DefaultHub = "https://huggingface.co"

// Client gets model files. The zero Client works. Once its fields are set, its
// methods may be called from any goroutine.
type Client struct {
	Token     string                                  // of the hub; sent to the hub's host only
	TokenFile string                                  // that Token was read from; empty: from elsewhere
	Hub       string                                  // address of the hub; empty is DefaultHub
	UserAgent string                                  // empty is Go's
	Transport http.RoundTripper                       // nil is a transport with proxies from the environment and short time-outs
	FreeBytes func(dir string) (bytes int64, _ error) // nil asks the file system
	Log       *slog.Logger                            // gets retries, waits and files moved aside, without secrets; nil logs nothing
	HubCache  string                                  // cache of the hub's own tools, which is only read; empty: none
	Offline   bool                                    // the hub is not asked, nor DefaultHub
	// Brisk makes the client give up on a host after two short failed attempts to
	// connect. It is set if a model has a fallback. Otherwise a network may come up late,
	// and the file is the only way to measure the model. Servers that answer 429 or 503
	// get as many attempts in both cases.
	Brisk bool
	// ReserveBytes stay free on the file system of the files; nil is DefaultReserveBytes.
	ReserveBytes *int64
	Hint         string // what to do if a host cannot be reached, for the log

	dead     sync.Map      // hosts that were given up: deadHost by host
	warned   sync.Map      // warnings that were logged, by their text
	patience time.Duration // replaces stallTime and the waits between attempts in tests; 0 does not
}

// Remote is what a server says about a file before it sends the file.
type Remote struct {
	Bytes  int64  // of the file; if the server does not say, those that its header counts
	SHA256 string // 64 hexadecimal digits in lower case; empty if the server does not say

	validator string // strong ETag or Last-Modified; it changes with the file
}

// Probe asks for the size and checksum of a file, with retries. It requests the
// first byte, because addresses that are signed for GET refuse HEAD. If the server does
// not say the size, Probe reads the header. Errors are those of Fetch.
func (c *Client) Probe(ctx context.Context, src source.Source) (Remote, error) {
	return retry(ctx, c, src, func() (Remote, error) {
		resp, remote, err := c.get(ctx, src, "bytes=0-0", "")
		if err != nil {
			return Remote{}, err
		}
		_ = resp.Body.Close()
		if remote.Bytes == 0 {
			_, remote, err = c.readHeader(ctx, src)
		}
		return remote, err
	})
}

// Header reads the header of a file on a server, in one request for the first
// part of the file. Errors are those of Fetch.
func (c *Client) Header(ctx context.Context, src source.Source) (*gguf.File, Remote, error) {
	var remote Remote
	header, err := retry(ctx, c, src, func() (header *gguf.File, err error) {
		header, remote, err = c.readHeader(ctx, src)
		return header, err
	})
	return header, remote, err
}

// readHeader is one attempt of Header. If the server does not say the size of the file,
// it is the one that the header says. The error is permanent, for package
// backoff, if a retry cannot help.
func (c *Client) readHeader(ctx context.Context, src source.Source) (*gguf.File, Remote, error) {
	limits := gguf.DefaultLimits
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errStalled)
	defer cancel()
	resp, remote, err := c.get(ctx, src, fmt.Sprintf("bytes=0-%d", limits.HeaderBytes-1), "")
	if err != nil {
		return nil, Remote{}, err
	}
	defer resp.Body.Close()
	body, size := &failing{r: resp.Body}, remote.Bytes
	if size == 0 {
		size = math.MaxInt64
	}
	header, err := gguf.Read(body, size, limits)
	switch {
	case err != nil && body.err != nil: // a complete header is enough, even if the stream failed after it
		return nil, Remote{}, fmt.Errorf("%v: %w", src, c.clean(body.err))
	case err != nil:
		return nil, Remote{}, backoff.Permanent(fmt.Errorf("%v: %w", src, err))
	}
	if remote.Bytes == 0 {
		remote.Bytes = header.Size()
	}
	return header, remote, nil
}

// failing keeps the error that ended a stream. It tells a broken stream from
// broken content.
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
	maxTries     = 6                // attempts in a row without a new byte; with the waits between them about 20 s
	firstWait    = time.Second / 2  // before the second attempt; doubled at every further one, with jitter
	longestWait  = 10 * time.Second // between two attempts
	stallTime    = 10 * time.Second // a connection that brings no byte for so long is given up
	maxRedirects = 10

	// A host that was given up is not asked for so long: several models may be on it.
	deadTime = 30 * time.Second

	briskTries = 2               // attempts of a Brisk client to connect to a host
	briskDial  = 3 * time.Second // for each of them
)

// givenUp reports whether a Brisk client has tried often enough to connect.
func (c *Client) givenUp(err error, tries int) bool {
	return c.Brisk && tries >= briskTries && unreached(err)
}

// unreached reports whether an error is that of making a connection, TLS included.
func unreached(err error) bool {
	var e *net.OpError
	switch {
	case errors.As(err, &e) && (e.Op == "dial" || e.Op == "proxyconnect"):
	case errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, new(tls.RecordHeaderError)), errors.As(err, new(tls.AlertError)):
	case strings.Contains(err.Error(), "TLS handshake timeout"): // net/http has no type for these two
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
	default:
		return false
	}
	return true
}

// deadHost is a host that was given up.
type deadHost struct {
	err   *HostError
	until time.Time
}

// giveUp notes, if a request was given up because its host cannot be reached or takes
// too long to answer, that the host is dead. It returns err, or the plain HostError in it.
func (c *Client) giveUp(err error) error {
	var host *HostError
	if !errors.As(err, &host) {
		return err
	}
	var late net.Error
	if unreached(host.Err) || errors.As(host.Err, &late) && late.Timeout() {
		c.dead.LoadOrStore(host.Host, deadHost{host, time.Now().Add(deadTime)})
	}
	return host
}

// alive returns the error of a dead host.
func (c *Client) alive(host string) error {
	if d, ok := c.dead.Load(host); ok {
		if time.Now().Before(d.(deadHost).until) {
			return d.(deadHost).err
		}
		c.dead.CompareAndDelete(host, d)
	}
	return nil
}

// logRetry logs that a request is repeated. The first of several retries in a row
// is a warning, the others are debug messages. If a host does not answer, only the first
// retry of all requests to it is a warning. A Brisk client that cannot connect warns of
// nothing: it gives up soon, with an error that says the same.
func (c *Client) logRetry(tries int, err error, message string, args ...any) {
	level := slog.LevelDebug
	if tries <= 1 && !(c.Brisk && unreached(err)) {
		level = slog.LevelWarn
	}
	var host *HostError
	if errors.As(err, &host) {
		if level == slog.LevelWarn {
			c.warnHost(host)
		}
		level = slog.LevelDebug
	}
	c.log().Log(context.Background(), level, message, append(args, "reason", err)...)
}

// warnHost warns once that a host gives no answer and is asked again.
func (c *Client) warnHost(err *HostError) {
	if _, ok := c.warned.LoadOrStore(err.Host, true); ok {
		return
	}
	var hint []any
	if c.Hint != "" {
		hint = []any{"hint", c.Hint}
	}
	c.log().Warn(err.Error()+", trying again", hint...)
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

// retry repeats a request without state until it succeeds or a retry cannot help.
// Downloads have state and use download.repeat.
func retry[T any](ctx context.Context, c *Client, what fmt.Stringer, ask func() (T, error)) (T, error) {
	tries := 0
	got, err := backoff.Retry(ctx, func() (T, error) {
		got, err := ask()
		if tries++; c.givenUp(err, tries) {
			err = backoff.Permanent(err)
		}
		return got, err
	}, backoff.WithBackOff(c.newBackOff()), backoff.WithMaxTries(maxTries), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, wait time.Duration) {
			c.logRetry(tries, err, "trying again", "model", what.String(), "retry_in_s", wait.Round(time.Millisecond).Seconds())
		}))
	var permanent *backoff.PermanentError // the library does not unwrap it at the last try
	if errors.As(err, &permanent) {
		err = permanent.Err
	}
	if ctx.Err() == nil {
		err = c.giveUp(err)
	}
	return got, err
}

// get requests a range of a file. The range has the syntax of the Range header;
// empty is the whole file. With a validator, a file that has changed is sent
// whole. The answer has the status 200 or 206. Its size is 0 if the server does not say
// it. The error is permanent, for package backoff, if a retry cannot help.
func (c *Client) get(ctx context.Context, src source.Source, span, validator string) (*http.Response, Remote, error) {
	if c.Offline && src.Repository != "" {
		return nil, Remote{}, backoff.Permanent(c.offline(src))
	}
	hub, err := c.hubAddress()
	if err != nil {
		return nil, Remote{}, backoff.Permanent(err)
	}
	from, err := src.Address(hub)
	if err != nil {
		return nil, Remote{}, backoff.Permanent(err)
	}
	if c.Offline && onHub(from, hub) {
		return nil, Remote{}, backoff.Permanent(c.offline(src))
	}
	header := http.Header{"Accept-Encoding": {"identity"}}
	if span != "" {
		header.Set("Range", span)
		if validator != "" {
			header.Set("If-Range", validator)
		}
	}
	linked := linked{hub: hub}
	resp, err := c.send(ctx, src, hub, from, header, linked.look)
	if err != nil {
		return nil, Remote{}, err
	}
	remote := Remote{SHA256: linked.sha256, validator: strongValidator(resp.Header)}
	remote.Bytes = fullSize(resp)
	if remote.Bytes < 0 && linked.bytes > 0 {
		remote.Bytes = linked.bytes
	}
	encoding := resp.Header.Get("Content-Encoding")
	switch {
	case encoding != "" && !strings.EqualFold(encoding, "identity"):
		err = fmt.Errorf("%v: %w with %q (Content-Encoding), although it was asked not to", src, ErrEncoded, encoding)
	case remote.Bytes == 0:
		err = fmt.Errorf("%v: the server says that the file is empty: %w", src, gguf.ErrEmpty)
	case linked.bytes > 0 && linked.bytes != remote.Bytes:
		err = fmt.Errorf("%v: the hub says that the file has %d bytes, but %s says %d", src, linked.bytes, resp.Request.URL.Host, remote.Bytes)
	}
	if err != nil {
		_ = resp.Body.Close()
		return nil, Remote{}, backoff.Permanent(err)
	}
	remote.Bytes = max(remote.Bytes, 0)
	return resp, remote, nil
}

// send requests an address, which what names in messages. look sees each address on the
// way, and the header of its answer. The answer has the status 200 or 206. The error is
// permanent, for package backoff, if a retry cannot help.
func (c *Client) send(ctx context.Context, what fmt.Stringer, hub, from *url.URL, header http.Header, look func(*url.URL, http.Header)) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), http.NoBody)
	if err != nil {
		return nil, backoff.Permanent(c.clean(err))
	}
	req.Header = header
	if c.UserAgent != "" {
		req.Header.Set("User-Agent", c.UserAgent)
	}
	client := http.Client{
		Transport: &tokenTransport{c.transport(), hub, c},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			look(via[len(via)-1].URL, req.Response.Header)
			req.Header.Del("Referer") // may hold the query of a signed address
			if len(via) >= maxRedirects {
				return backoff.Permanent(fmt.Errorf("more than %d redirects", maxRedirects))
			}
			if c.Offline && onHub(req.URL, hub) {
				return backoff.Permanent(fmt.Errorf("%w, and the server redirects to the hub", ErrOffline))
			}
			if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
				return backoff.Permanent(fmt.Errorf("redirected from https to %s://%s", req.URL.Scheme, req.URL.Host))
			}
			return nil
		},
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, c.transportError(ctx, what, err)
	}
	look(resp.Request.URL, resp.Header)
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		defer resp.Body.Close()
		failure := c.statusError(resp)
		if !failure.temporary() {
			return nil, backoff.Permanent(failure)
		}
		return nil, failure
	}
	return resp, nil
}

// linked is what the hub says about a file when it redirects to another host: the
// checksum and the size, in headers of its own. Headers of other hosts do not
// count, because their entity tags may be anything.
type linked struct {
	hub    *url.URL
	sha256 string
	bytes  int64
}

func (l *linked) look(from *url.URL, h http.Header) {
	if !source.SameOrigin(from, l.hub) {
		return
	}
	for _, name := range []string{"X-Linked-Etag", "Etag"} {
		if sum := strings.Trim(h.Get(name), `"`); source.IsSHA256(sum) {
			l.sha256 = strings.ToLower(sum)
			break
		}
	}
	if n, err := strconv.ParseInt(h.Get("X-Linked-Size"), 10, 64); err == nil && n > 0 {
		l.bytes = n
	}
}

// strongValidator is a validator that If-Range accepts, RFC 9110 section 13.1.5.
func strongValidator(h http.Header) string {
	if tag := h.Get("Etag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return h.Get("Last-Modified")
}

// fullSize is the size of the whole file in bytes, -1 if the answer does not say.
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

// tokenTransport adds the token to requests to the hub only. A header that is set
// on a request could travel along redirects to other hosts.
//
// If the hub answers 401 to a token from a file, the request is repeated once without
// the token: one that is no longer valid must not make public files unreadable.
type tokenTransport struct {
	http.RoundTripper
	hub    *url.URL
	client *Client
}

func (t *tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.client.alive(req.URL.Host); err != nil {
		return nil, backoff.Permanent(err)
	}
	if t.client.Token == "" || !source.SameOrigin(req.URL, t.hub) {
		return t.RoundTripper.RoundTrip(req)
	}
	with := req.Clone(req.Context())
	with.Header.Set("Authorization", "Bearer "+t.client.Token)
	refusal, err := t.RoundTripper.RoundTrip(with)
	if err != nil || refusal.StatusCode != http.StatusUnauthorized || t.client.TokenFile == "" {
		return refusal, err
	}
	resp, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		_ = refusal.Body.Close()
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		_ = resp.Body.Close()
		return refusal, nil
	}
	_ = refusal.Body.Close()
	t.client.warnOnce("the hub refuses " + t.client.tokenName() + "; trying without it")
	return resp, nil
}

var (
	defaultTransport = sync.OnceValue(func() http.RoundTripper { return newTransport(10 * time.Second) })
	briskTransport   = sync.OnceValue(func() http.RoundTripper { return newTransport(briskDial) })
)

// newTransport makes a transport with a time-out for connecting. It uses HTTP/1:
// one large body at a time gains nothing from HTTP/2, and pays for its flow
// control.
func newTransport(dial time.Duration) http.RoundTripper {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		OnProxyConnectResponse: func(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			return &net.OpError{Op: "proxyconnect", Net: "tcp", Err: fmt.Errorf("%s answers %s", proxy.Host, resp.Status)}
		},
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

// hubAddress returns the address of the hub.
func (c *Client) hubAddress() (*url.URL, error) {
	hub, err := url.Parse(c.hub())
	if err != nil || hub.Host == "" {
		return nil, fmt.Errorf("%w: %s is not the address of a hub", source.ErrBad, source.Bare(c.hub()))
	}
	return hub, nil
}

func (c *Client) log() *slog.Logger {
	if c.Log != nil {
		return c.Log
	}
	return slog.New(slog.DiscardHandler)
}

// statusError makes an error of an answer that is not the file.
func (c *Client) statusError(resp *http.Response) *StatusError {
	u := resp.Request.URL
	e := &StatusError{Status: resp.StatusCode, URL: source.Bare(u.String()), RetryAfter: retryAfter(resp.Header)}
	reason := resp.Header.Get("X-Error-Code") // the hub's
	if message := resp.Header.Get("X-Error-Message"); message != "" {
		reason = strings.TrimPrefix(reason+": "+message, ": ")
	}
	e.Reason = c.hide(reason[:min(len(reason), 200)])
	switch {
	case e.Status == http.StatusNotFound:
		e.Hint = "no such file; check the repository, the file name and the revision"
	case !e.Is(ErrRefused):
	case resp.Header.Get("X-Error-Code") == "GatedRepo" && c.Token == "":
		e.Hint = "the repository is gated; accept its terms on the hub and set HF_TOKEN"
	case resp.Header.Get("X-Error-Code") == "GatedRepo":
		e.Hint = fmt.Sprintf("the repository is gated, and %s gives no access; accept its terms on the hub", c.tokenName())
	case c.Token == "":
		e.Hint = "the repository is private, gated or does not exist; set HF_TOKEN if you have access"
	default:
		e.Hint = c.tokenName() + " gives no access, or was not sent to this host"
	}
	return e
}

// retryAfter reads the header Retry-After, RFC 9110 section 10.2.3: seconds or a
// date. 0 means that there is none.
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

// transportError is the error of a request that got no answer, without secrets.
// If the context has ended, it is the cause of the context. It is permanent, for
// package backoff, if a retry cannot help.
func (c *Client) transportError(ctx context.Context, what fmt.Stringer, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var dead *HostError
	if errors.As(err, &dead) {
		return backoff.Permanent(dead)
	}
	if errors.As(err, new(*backoff.PermanentError)) {
		return backoff.Permanent(fmt.Errorf("%v: %w", what, c.clean(err)))
	}
	host := what.String()
	var u *url.Error
	if errors.As(err, &u) {
		if to, err := url.Parse(u.URL); err == nil {
			host = to.Host
		}
	}
	failure := &HostError{host, c.clean(err)}
	if errors.As(err, new(*tls.CertificateVerificationError)) {
		return backoff.Permanent(failure)
	}
	return failure
}

// clean removes the secrets from an error's text. errors.Is still finds the
// original error.
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

// hide removes the token and the secrets of URLs from a text.
func (c *Client) hide(text string) string {
	if c.Token != "" {
		text = strings.ReplaceAll(text, c.Token, "***")
	}
	return source.Redact(text)
}

type cleaned struct {
	text string
	err  error
}

func (e *cleaned) Error() string { return e.text }
func (e *cleaned) Unwrap() error { return e.err }
