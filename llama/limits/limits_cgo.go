//go:build cgo && linux

package limits

// #cgo CFLAGS: -O2 -std=gnu11 -Wall -Wextra
// #cgo LDFLAGS: -lpthread
import "C"
