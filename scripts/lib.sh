# shellcheck shell=bash
# Functions that all scripts share: messages, the pin, the choice of libllama and of the image builder. Scripts source it
# after `set -euo pipefail`.

export LC_ALL=C

program=$(basename "$0")
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
pin=$repo/third_party/llama.cpp/pin
roots=$repo/third_party/llama.cpp/root

say() { printf '%s: %s\n' "$program" "$*" >&2; }

# die ERROR [HINT]...: prints the error and each hint on a line of its own, and exits with 1.
die() {
	printf '%s: error: %s\n' "$program" "$1" >&2
	shift
	for hint; do printf 'hint: %s\n' "$hint" >&2; done
	exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

need_compiler() { have "${CC:-gcc}" || die "the C compiler ${CC:-gcc} is missing" "sudo apt-get install gcc libc6-dev"; }

# quote TEXT: prints TEXT quoted as one word of the shell.
quote() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

# ---- the pin ----

pin_value() { awk -v key="$1" '$1 == key { print $2; exit }' "$pin"; }

# pin_rows ROLES ARCH: prints "package version size sha256 path" for each package. ROLES are some of "library tools cuda
# vulkan-test".
pin_rows() {
	awk -v roles=" $1 " -v arch="$2" 'NF == 7 && $2 == arch && index(roles, " " $1 " ") { print $3, $4, $5, $6, $7 }' "$pin"
}

# ---- architectures, in Debian's names ----

host_arch() {
	case $(uname -m) in
	x86_64) echo amd64 ;;
	aarch64) echo arm64 ;;
	*) die "the pin has no libllama for $(uname -m), only for amd64 and arm64" "build llama.cpp yourself and set LLAMA_PREFIX" ;;
	esac
}

triplet() { case $1 in amd64) echo x86_64-linux-gnu ;; arm64) echo aarch64-linux-gnu ;; esac; }
loader() { case $1 in amd64) echo ld-linux-x86-64.so.2 ;; arm64) echo ld-linux-aarch64.so.1 ;; esac; }

# host_libc: prints the version of this machine's glibc ("2.36"), or nothing if it has another libc.
host_libc() { getconf GNU_LIBC_VERSION 2>/dev/null | awk '{ print $2 }' || true; }

# older A B: succeeds if version A is lower than version B.
older() { [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# ---- which libllama ----

# foreign_pkg_config_path: prints PKG_CONFIG_PATH without the entries of llama-env. Otherwise our own llama.pc would be
# taken for the system's, and llama-env would print another result when it is repeated.
foreign_pkg_config_path() {
	local entry out='' IFS=:
	for entry in ${PKG_CONFIG_PATH:-}; do
		case $entry in "$roots"/*) ;; *) out=${out:+$out:}$entry ;; esac
	done
	printf '%s' "$out"
}

# choose_library: sets library_source to prefix, system or packages. For prefix and system it also sets library_include
# and library_lib.
choose_library() {
	local minimum path
	minimum=$(pin_value llama)
	path=$(foreign_pkg_config_path)
	if [ -n "${LLAMA_PREFIX:-}" ]; then
		library_source=prefix
		library_include=$LLAMA_PREFIX/include
		[ -f "$library_include/llama.h" ] ||
			die "LLAMA_PREFIX=$LLAMA_PREFIX has no include/llama.h" "set LLAMA_PREFIX to the directory that libllama was installed to"
		for library_lib in "$LLAMA_PREFIX"/lib "$LLAMA_PREFIX"/lib64 "$LLAMA_PREFIX"/lib/*-linux-gnu ''; do
			if [ -e "$library_lib/libllama.so" ]; then break; fi
		done
		[ -n "$library_lib" ] || die "LLAMA_PREFIX=$LLAMA_PREFIX has no libllama.so in lib, lib64 or lib/*-linux-gnu"
		library_lib=$(cd "$library_lib" && pwd -P)
	elif [ "${LLAMA_SYSTEM:-yes}" != no ] && have pkg-config &&
		PKG_CONFIG_PATH=$path pkg-config --atleast-version="$minimum" llama 2>/dev/null; then
		library_source=system
		library_include=$(PKG_CONFIG_PATH=$path pkg-config --variable=includedir llama)
		library_lib=$(PKG_CONFIG_PATH=$path pkg-config --variable=libdir llama)
	else
		library_source=packages
	fi
}

# write_pc DIR INCLUDE LIB VERSION: writes a llama.pc for a library that was moved. The loader and the run path are not
# in it but in CGO_LDFLAGS, because Go does not allow these flags in .pc files.
write_pc() {
	local include=${2// /\\ } lib=${3// /\\ }
	mkdir -p "$1"
	cat >"$1/.llama.pc.$$" <<-PC
		Name: llama
		Description: libllama, where get-llama found or put it
		Version: $4
		Cflags: -I$include
		Libs: -L$lib -lllama -lggml -lggml-base
	PC
	mv "$1/.llama.pc.$$" "$1/llama.pc"
}

# ---- container images ----

# choose_builder: sets builder to BUILDER, else to docker or buildah, whichever works here.
choose_builder() {
	builder=${BUILDER:-}
	if [ -z "$builder" ]; then
		if have docker && docker info >/dev/null 2>&1; then
			builder=docker
		elif have buildah; then
			builder=buildah
		else
			die "neither docker with a running daemon nor buildah is installed" "sudo apt-get install buildah"
		fi
	fi
	case $builder in docker | buildah) ;; *) die "unknown builder $builder" "BUILDER=docker or BUILDER=buildah" ;; esac
}
