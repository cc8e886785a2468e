package result

import (
	"errors"
	"fmt"
	"io/fs"
)

// AtPath adds the path of a file to an error about it. An error of the file system has
// the path already.
func AtPath(path string, err error) error {
	var e *fs.PathError
	if errors.As(err, &e) && e.Path == path {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}
