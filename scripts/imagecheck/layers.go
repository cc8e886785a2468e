package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
)

// Limits, in bytes.
const (
	maxOurs = 60e6 // uncompressed size of the last layer, the program
)

// maxImage is the largest compressed size of the images that have a limit, in bytes.
var maxImage = map[string]int64{"cpu": 150e6, "vulkan": 250e6}

// layer is one layer of an image.
type layer struct {
	Compressed   int64
	Uncompressed int64
	CreatedBy    string
	Forbidden    []string // files that no layer may have: "path: reason"
}

// rules describe the files and links that no layer may have. Paths are relative to
// the root.
var rules = []struct {
	reason  string
	path    *regexp.Regexp
	allowed *regexp.Regexp // nil: no exception
}{
	{"part of NVIDIA's driver, which comes from the host", regexp.MustCompile(`(^|/)(libcuda\.so|libnvidia-|libcudadebugger)`), nil},
	{"a compiler", regexp.MustCompile(`^usr/(local/)?bin/([^/]*-linux-gnu-)?(cc|c\+\+|gcc|g\+\+|cpp|clang|ld|as|go|gofmt|make|nvcc)(-[0-9.]+)?$|^usr/lib/(go|gcc|cuda)[^/]*/|^usr/(local/)?include/`), regexp.MustCompile(`^usr/include/clang/`)}, // ROCm compiles at run time
	{"a cache", regexp.MustCompile(`^var/cache/(apt|man|fontconfig)/.|^var/lib/apt/lists/.|^var/log/apt/.|^root/(\.cache|go)/.|\.deb$`), regexp.MustCompile(`^var/(cache/apt/archives|lib/apt/lists)/lock$`)},
	{"documentation", regexp.MustCompile(`^usr/share/(doc|man|info|locale|lintian)/.`), regexp.MustCompile(`^usr/share/doc/[^/]+(/copyright)?$|^usr/share/locale/locale\.alias$|^usr/share/man/man1/benchmark-llm[^/]*\.1\.gz$`)},
}

// forbidden is the reason why a layer may not have a file or link. It is empty if
// the layer may have it.
func forbidden(path string) string {
	for _, r := range rules {
		if r.path.MatchString(path) && (r.allowed == nil || !r.allowed.MatchString(path)) {
			return r.reason
		}
	}
	return ""
}

// checkLayers prints the layers of the only image in an OCI layout. It fails if a
// layer has a forbidden file, or if the image or the last layer is too large.
func checkLayers(w io.Writer, layout, backend string) error {
	layers, err := readLayers(layout)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if len(layers) == 0 {
		return errors.New("image: it has no layers")
	}
	var errs []error
	var compressed, uncompressed int64
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"layer", "compressed", "uncompressed", "made by"})
	for i, l := range layers {
		compressed += l.Compressed
		uncompressed += l.Uncompressed
		t.AppendRow(table.Row{i + 1, megabytes(l.Compressed), megabytes(l.Uncompressed), shorten(l.CreatedBy, 72)})
		for n, f := range l.Forbidden {
			if n == 10 {
				errs = append(errs, fmt.Errorf("layer %d has %d more forbidden files", i+1, len(l.Forbidden)-n))
				break
			}
			errs = append(errs, fmt.Errorf("layer %d has %s", i+1, f))
		}
	}
	t.AppendFooter(table.Row{"all", megabytes(compressed), megabytes(uncompressed), ""})
	fmt.Fprintln(w, t.Render())
	if most := maxImage[backend]; most > 0 && compressed > most {
		errs = append(errs, fmt.Errorf("the %s image has %s compressed, more than %s", backend, megabytes(compressed), megabytes(most)))
	}
	if ours := layers[len(layers)-1].Uncompressed; ours > maxOurs {
		errs = append(errs, fmt.Errorf("the program's layer has %s, more than %s", megabytes(ours), megabytes(maxOurs)))
	}
	return errors.Join(errs...)
}

func megabytes(n int64) string { return humanize.CommafWithDigits(float64(n)/1e6, 1) + " MB" }

// shorten removes the shell and the build arguments from a command and cuts it to n
// bytes.
func shorten(s string, n int) string {
	if i := strings.Index(s, "/bin/sh -c "); i >= 0 {
		s = s[i+len("/bin/sh -c "):]
	}
	s = strings.Join(strings.Fields(strings.TrimPrefix(s, "#(nop)")), " ")
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// descriptor refers to a blob of an OCI layout.
type descriptor struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// readLayers reads the layers of the only image in an OCI layout directory.
func readLayers(layout string) ([]layer, error) {
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := readJSON(filepath.Join(layout, "index.json"), &index); err != nil {
		return nil, err
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("the layout has %d images, expected one", len(index.Manifests))
	}
	var manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if err := readJSON(blob(layout, index.Manifests[0]), &manifest); err != nil {
		return nil, err
	}
	var config struct {
		History []struct {
			CreatedBy  string `json:"created_by"`
			EmptyLayer bool   `json:"empty_layer"`
		} `json:"history"`
	}
	if err := readJSON(blob(layout, manifest.Config), &config); err != nil {
		return nil, err
	}
	var layers []layer
	for _, d := range manifest.Layers {
		l, err := readLayer(blob(layout, d))
		if err != nil {
			return nil, err
		}
		l.Compressed = d.Size
		layers = append(layers, l)
	}
	i := 0
	for _, h := range config.History {
		if !h.EmptyLayer && i < len(layers) {
			layers[i].CreatedBy = h.CreatedBy
			i++
		}
	}
	return layers, nil
}

// blob is the path of a blob.
func blob(layout string, d descriptor) string {
	return filepath.Join(layout, "blobs", strings.Replace(d.Digest, ":", "/", 1))
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// readLayer reads a layer: a tar file, compressed with gzip.
func readLayer(path string) (layer, error) {
	f, err := os.Open(path)
	if err != nil {
		return layer{}, err
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return layer{}, fmt.Errorf("%s: %w", path, err)
	}
	counted := &counter{r: unzipped}
	var l layer
	for files := tar.NewReader(counted); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return layer{}, fmt.Errorf("%s: %w", path, err)
		}
		name := strings.TrimPrefix(filepath.Clean("/"+h.Name), "/")
		if h.Typeflag == tar.TypeDir || strings.HasPrefix(filepath.Base(name), ".wh.") { // whiteouts remove files
			continue
		}
		if reason := forbidden(name); reason != "" {
			l.Forbidden = append(l.Forbidden, name+": "+reason)
		}
	}
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return layer{}, fmt.Errorf("%s: %w", path, err)
	}
	l.Uncompressed = counted.n
	return l, nil
}

// counter is a reader that counts the bytes read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
