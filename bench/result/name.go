package result

import "path/filepath"

// ModelName returns the name of a model for people, by its name in records. Records have
// the absolute path of a downloaded file; its name is the last part. Other names are
// as they were given, or are the shortest that tell the models of a run apart.
func ModelName(filename string) string {
	if filepath.IsAbs(filename) {
		return filepath.Base(filename)
	}
	return filename
}
