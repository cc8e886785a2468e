//go:build !cgo

package main

// scripts is the folder of the scripts for a build without the library.
const scripts = "nolibrary"
