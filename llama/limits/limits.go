// Package limits ends a program before Go's run time starts if a limit of the process is
// too low for it. The run time would print a trace and exit with code 2. An import is
// enough; without cgo the package does nothing. Only programs import it: it prints and exits.
package limits
