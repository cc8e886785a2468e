package host

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// libraryFile matches the files of libllama and ggml.
var libraryFile = regexp.MustCompile(`^lib(llama|ggml)[^/]*\.so(\.[0-9.]+)?$`)

// build is a fingerprint of the program and the library that a process uses: its
// executable, the mapped files of libllama and ggml, and the back-ends beside them,
// which only workers open. It is the beginning of the SHA-256 of their paths, sizes and
// modification times. process is a directory as /proc/self. The result is empty if the
// executable is not known.
func build(process string) string {
	exe, err := os.Readlink(filepath.Join(process, "exe"))
	if err != nil {
		return ""
	}
	files := []string{strings.TrimSuffix(exe, " (deleted)")}
	for line := range strings.Lines(readText(filepath.Join(process, "maps"))) {
		i := strings.IndexByte(line, '/')
		if i < 0 || !libraryFile.MatchString(filepath.Base(strings.TrimSpace(line[i:]))) {
			continue
		}
		path := strings.TrimSpace(line[i:])
		files = append(files, path)
		for _, pattern := range []string{"libggml*.so", "ggml/*/libggml*.so", "ggml/libggml*.so"} {
			beside, _ := filepath.Glob(filepath.Join(filepath.Dir(path), pattern)) // fails only if the path itself contains a bad pattern
			files = append(files, beside...)
		}
	}
	slices.Sort(files)
	sum := sha256.New()
	for _, path := range slices.Compact(files) {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintln(sum, path, info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano))
		}
	}
	return fmt.Sprintf("%.16x", sum.Sum(nil))[:16]
}

// niceness returns the niceness of this process; nil: not known.
func niceness() *int {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return nil
	}
	n = 20 - n // the system call returns 1…40
	return &n
}
