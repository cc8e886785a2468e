// Command mirror serves a directory as a Debian mirror with faults, for the tests of the scripts. The first element of
// the request's path selects the fault: /ok/ (none), /corrupt/ (a flipped bit), /cut/ (half the body), /gone/ (404).
// Its first line of output is its address. It then prints every request.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("http://" + listener.Addr().String())
	log.Fatal(http.Serve(listener, mirror(os.Args[1])))
}

// mirror serves the files in dir.
func mirror(dir string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Method, r.URL.Path)
		fault, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		body, err := os.ReadFile(filepath.Join(dir, filepath.Clean("/"+path)))
		if err != nil || fault == "gone" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		switch fault {
		case "corrupt":
			body[len(body)/2] ^= 1
		case "cut":
			body = body[:len(body)/2]
		}
		if _, err := w.Write(body); err != nil {
			log.Print(err)
		}
	}
}
