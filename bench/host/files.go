package host

import (
	"os"
	"strconv"
	"strings"
)

// files are kept open to be read again and again. A file that could not be opened is
// nil and not tried again, unless it is closed.
type files map[string]*os.File

// maxFile bounds what is read of a file.
const maxFile = 1 << 20

// text reads a file from its beginning; empty if it cannot be read.
func (f files) text(path string) string {
	file, known := f[path]
	if !known {
		file, _ = os.Open(path) // nil on error
		f[path] = file
	}
	if file == nil {
		return ""
	}
	var b strings.Builder
	var buffer [8192]byte
	for b.Len() < maxFile {
		n, err := file.ReadAt(buffer[:], int64(b.Len()))
		b.Write(buffer[:n])
		if err != nil {
			break // the end, or the process of the file has ended
		}
	}
	return b.String()
}

// close closes the files whose path is under or equal to path.
func (f files) close(path string) {
	for name, file := range f {
		if name == path || strings.HasPrefix(name, strings.TrimSuffix(path, "/")+"/") {
			if file != nil {
				_ = file.Close()
			}
			delete(f, name)
		}
	}
}

// pressureTotal stands before the microseconds in which some task waited.
const pressureTotal = "some "

// read reads the counter.
func (c counter) read(f files) (n uint64, ok bool) {
	for line := range strings.Lines(f.text(c.path)) {
		number, found := strings.CutPrefix(strings.TrimSpace(line), c.word)
		if !found {
			continue
		}
		if c.word == pressureTotal {
			_, number, found = strings.Cut(number, "total=")
		}
		number, _, _ = strings.Cut(strings.TrimSpace(number), " ") // a unit may follow
		n, err := strconv.ParseUint(number, 10, 64)
		return n * max(c.scale, 1), found && err == nil
	}
	return 0, false
}

// readDir lists the names in a directory.
func readDir(path string) []string {
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	return names
}
