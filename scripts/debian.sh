# shellcheck shell=bash
# Functions for Debian's archive: mirrors, downloads and the index. Scripts source it after lib.sh.

apt_helper=/usr/lib/apt/apt-helper

# mirrors: prints the Debian mirrors to ask, one URI per line, without a final slash. These are DEBIAN_MIRROR, else the
# mirrors of the machine's apt, else, if docker runs, the mirror of the base image.
mirrors() {
	local found
	if [ -n "${DEBIAN_MIRROR:-}" ]; then
		found=${DEBIAN_MIRROR%/}
	else
		found=$(mirrors_of_apt || true)
		[ -n "$found" ] || found=$(mirror_of_image || true)
	fi
	printf '%s' "${found:+$found$'\n'}"
}

# mirrors_of_apt: prints the Debian mirrors of the machine's apt. Only "update --print-uris" understands all of apt's
# configuration, works for every user, and needs no index.
mirrors_of_apt() {
	have apt-get || return 0
	local codename uri list
	# shellcheck disable=SC1091
	codename=$(. /etc/os-release && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}" || true)
	apt-get update --print-uris 2>/dev/null |
		sed -nE "s,^'(.*)/dists/(sid|unstable|testing|(old)*stable${codename:+|$codename})(-updates|-backports)?/InRelease'.*,\1,p" |
		while read -r uri; do
			case $uri in
			mirror+file:*) # a file of mirrors, one per line, with options after a tab
				list=${uri#mirror+file:}
				sed -E 's/#.*//; s,/?[[:space:]].*,,; s,/$,,; /^$/d' "/${list#"${list%%[!/]*}"}" ;;
			mirror*) ;; # a list on a server is not supported: DEBIAN_MIRROR must be set
			*) printf '%s\n' "${uri%/}" ;;
			esac
		done | awk '!seen[$0]++'
}

# mirror_of_image: prints the mirror of the base image, if docker runs.
mirror_of_image() {
	local base=${BASE:-debian:sid-slim}
	have docker && docker info >/dev/null 2>&1 || return 0
	say "this machine's apt names no Debian mirror, asking the image $base for its mirror"
	docker run --rm "$base" cat /etc/apt/sources.list.d/debian.sources | awk '$1 == "URIs:" { sub("/$", "", $2); print $2; exit }'
}

# no_mirror: exits with the error that no mirror is known.
no_mirror() {
	die "no Debian mirror: this machine's apt names none" \
		"set DEBIAN_MIRROR, for example DEBIAN_MIRROR=https://mirror.example/debian (needed on Ubuntu and other distributions unless docker runs, because their mirrors lack Debian's packages)" \
		"or install libllama yourself and set LLAMA_PREFIX"
}

# snapshots: prints the base URIs of snapshot archives, to which a timestamp is appended: DEBIAN_SNAPSHOT, else the
# archives among the mirrors.
snapshots() {
	if [ -n "${DEBIAN_SNAPSHOT:-}" ]; then
		printf '%s\n' "${DEBIAN_SNAPSHOT%/}"
	else
		mirrors | sed -nE 's,^(.*)/[0-9]{8}T[0-9]{6}Z$,\1,p'
	fi
}

# fetch URI FILE: downloads a file. It returns 0 on success, 4 if the server does not have the file, and 1 for other
# errors; $fetch_error is the reason. It prefers apt's downloader, which knows the machine's proxies and credentials.
fetch() {
	local out status=0
	fetch_error=''
	if [ -x "$apt_helper" ]; then
		out=$("$apt_helper" -qq -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=2 -o Acquire::http::Timeout=20 \
			-o Acquire::https::Timeout=20 download-file "${1/#file:/copy:}" "$2" 2>&1) || status=$?
		fetch_error=$(sed -n 's/^E: Failed to fetch [^ ]* *//p' <<<"$out" | head -n 1)
	elif have curl; then
		out=$(curl -fsSL --retry 2 --connect-timeout 20 -o "$2" "$1" 2>&1) || status=$?
		fetch_error=$(sed 's/^curl: ([0-9]*) //' <<<"$out" | tail -n 1)
	elif have wget; then
		out=$(wget -nv --tries=2 --timeout=20 -O "$2" "$1" 2>&1) || status=$?
		fetch_error=$(tail -n 1 <<<"$out")
	else
		die "apt, curl and wget are missing, one of them is needed to download" "sudo apt-get install curl"
	fi
	[ "$status" != 0 ] || return 0
	rm -f "$2"
	: "${fetch_error:=${out:-exit status $status}}"
	case $fetch_error in
	*' 404'* | '404 '* | *' 410'* | '410 '* | *'No such file'* | *'t open file'*) return 4 ;;
	esac
	return 1
}

# open_index MIRROR ARCH DIR: fetches the mirror's index of the pinned suite, for index_rows. It uses a private apt with
# its state in DIR, and reads only the components of the pinned packages. Signatures are checked. If the index is past
# its validity date, it is fetched again without the date check; the checksums still protect the packages.
open_index() {
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg suite components
	suite=$(pin_value suite)
	components=$(awk 'NF == 7 { split($7, path, "/"); if (!seen[path[2]]++) printf " %s", path[2] }' "$pin")
	have apt-get || die "apt is missing, it is needed to read a mirror's index" "set DEBIAN_SNAPSHOT to a snapshot archive, or LLAMA_PREFIX to a libllama of your own"
	[ -f "$keyring" ] || die "$keyring is missing, so the index of $1 cannot be verified" "sudo apt-get install debian-archive-keyring"
	mkdir -p "$3/lists/partial" "$3/cache"
	: >"$3/status"
	printf 'deb [signed-by=%s] %s %s%s\n' "$keyring" "${1/#file:/copy:}" "$suite" "$components" >"$3/sources.list"
	private_apt=(-o Dir::Etc::sourcelist="$3/sources.list" -o Dir::Etc::sourceparts=- -o Dir::Etc::preferences=- -o Dir::Etc::preferencesparts=-
		-o Dir::State="$3" -o Dir::State::lists="$3/lists" -o Dir::State::status="$3/status" -o Dir::Cache="$3/cache"
		-o APT::Sandbox::User="$(id -un)" -o APT::Architecture="$2" -o APT::Architectures="$2" -o Acquire::Languages=none
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o APT::Update::Error-Mode=any)
	local out
	if ! out=$(apt-get -qq "${private_apt[@]}" update 2>&1); then
		case $out in
		*'is expired'*)
			say "warning: the index of $1 is past its validity date; its signature and the checksums are still checked"
			out=$(apt-get -qq "${private_apt[@]}" -o Acquire::Check-Valid-Until=false update 2>&1) || die "cannot read the index of $1: $(tail -n 1 <<<"$out")"
			;;
		*) die "cannot read the index of $1: $(grep -m 1 '^E:' <<<"$out" || tail -n 1 <<<"$out")" "set DEBIAN_MIRROR to another mirror" ;;
		esac
	fi
}

# index_rows PACKAGE...: prints "package version size sha256 path" of each package's newest version in the opened index.
index_rows() {
	apt-cache "${private_apt[@]}" show --no-all-versions "$@" 2>/dev/null | awk '
		/^Package: /  { package = $2 }
		/^Version: /  { version = $2 }
		/^Size: /     { size = $2 }
		/^SHA256: /   { sha256 = $2 }
		/^Filename: / { path = $2 }
		/^$/          { if (package != "") print package, version, size, sha256, path; package = "" }
		END           { if (package != "") print package, version, size, sha256, path }'
}
