# shellcheck shell=bash
# Debian's archive: which mirror, one download, the index. Sourced after lib.sh by get-llama and pin-update.

apt_helper=/usr/lib/apt/apt-helper

# mirrors: the Debian mirrors to ask, one URI a line without a final slash: DEBIAN_MIRROR, or those of the machine's apt,
# or, on a machine that is no Debian and has docker, that of the image that ours is built on.
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

# mirrors_of_apt: "update --print-uris" is the one question that apt answers from every form of its configuration, as any user, also
# where no index was ever fetched.
mirrors_of_apt() {
	have apt-get || return 0
	local codename uri list
	# shellcheck disable=SC1091
	codename=$(. /etc/os-release && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}" || true)
	apt-get update --print-uris 2>/dev/null |
		sed -nE "s,^'(.*)/dists/(sid|unstable|testing|(old)*stable${codename:+|$codename})(-updates|-backports)?/InRelease'.*,\1,p" |
		while read -r uri; do
			case $uri in
			mirror+file:*) # a file of mirrors, one a line, with options after a tab
				list=${uri#mirror+file:}
				sed -E 's/#.*//; s,/?[[:space:]].*,,; s,/$,,; /^$/d' "/${list#"${list%%[!/]*}"}" ;;
			mirror*) ;; # a list on a server: give DEBIAN_MIRROR
			*) printf '%s\n' "${uri%/}" ;;
			esac
		done | awk '!seen[$0]++'
}

mirror_of_image() {
	local base=${BASE:-debian:sid-slim}
	have docker && docker info >/dev/null 2>&1 || return 0
	say "this machine's apt names no Debian mirror: asking the image $base for its own"
	docker run --rm "$base" cat /etc/apt/sources.list.d/debian.sources | awk '$1 == "URIs:" { sub("/$", "", $2); print $2; exit }'
}

no_mirror() {
	die "no Debian mirror: this machine's apt names none" \
		"set DEBIAN_MIRROR to one, for example DEBIAN_MIRROR=https://mirror.example/debian (on Ubuntu and other distributions always, unless docker runs: their mirrors do not carry Debian's packages)" \
		"or install libllama yourself and set LLAMA_PREFIX"
}

# snapshots: bases of snapshot archives, to which a timestamp is appended: DEBIAN_SNAPSHOT, or where a mirror is one.
snapshots() {
	if [ -n "${DEBIAN_SNAPSHOT:-}" ]; then
		printf '%s\n' "${DEBIAN_SNAPSHOT%/}"
	else
		mirrors | sed -nE 's,^(.*)/[0-9]{8}T[0-9]{6}Z$,\1,p'
	fi
}

# fetch URI FILE: 0 done; 4 the server does not have it; 1 anything else, with the reason in $fetch_error.
# apt's own downloader comes first, because it knows the machine's proxies and credentials.
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
		die "nothing to download with" "sudo apt-get install curl"
	fi
	[ "$status" != 0 ] || return 0
	rm -f "$2"
	: "${fetch_error:=${out:-exit status $status}}"
	case $fetch_error in
	*' 404'* | '404 '* | *' 410'* | '410 '* | *'No such file'* | *'t open file'*) return 4 ;;
	esac
	return 1
}

# open_index MIRROR ARCH DIR: fetches the mirror's index of the pinned suite, in the components that the pin has packages
# of, with a private apt that lives in DIR and knows nothing of the machine's packages; index_rows then answers from it.
# Signatures are checked as always; only when the index is past its validity date is the call repeated without that
# check, because checksums still decide.
open_index() {
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg suite components
	suite=$(pin_value suite)
	components=$(awk 'NF == 7 { split($7, path, "/"); if (!seen[path[2]]++) printf " %s", path[2] }' "$pin")
	have apt-get || die "reading a mirror's index needs apt" "set DEBIAN_SNAPSHOT to a snapshot archive, or LLAMA_PREFIX to a libllama of your own"
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
			say "warning: the index of $1 is past its validity date; its signature and the checksums still decide"
			out=$(apt-get -qq "${private_apt[@]}" -o Acquire::Check-Valid-Until=false update 2>&1) || die "cannot read the index of $1: $(tail -n 1 <<<"$out")"
			;;
		*) die "cannot read the index of $1: $(grep -m 1 '^E:' <<<"$out" || tail -n 1 <<<"$out")" "set DEBIAN_MIRROR to another mirror" ;;
		esac
	fi
}

# index_rows PACKAGE...: "package version size sha256 path" of the newest version of each package of the opened index.
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
