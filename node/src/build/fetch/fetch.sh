# Brings sources: for each, `git NAME URL COMMIT REFERENCE`, `file NAME URL SHA256`, the last perhaps empty, or what a tree
# names: `watch`, `watch-packaged` or `spec`, then `NAME TREE MACROS`, with a macro on each line. The sandbox has no network
# but a socket to the builder's gate, which socat gives a port that git, curl and uscan can use.
set -eu
export GIT_CONFIG_NOSYSTEM=1 GIT_ATTR_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
unset http_proxy https_proxy all_proxy no_proxy
proxy=socks5h://127.0.0.1:1080

fail() {
  printf 'error: %s\n' "$*"
  exit 1
}

fetch_file() {
  printf 'fetching %s\n' "$2"
  curl -q --globoff --fail --silent --show-error --location --max-redirs 5 --proto =http,https --proto-redir =http,https \
    --connect-timeout 30 --proxy "$proxy" --output "$1" --url "$2" || fail "$1 cannot be fetched from $2"
  actual=$(sha256sum < "$1")
  actual=${actual%% *}
  [ -z "$3" ] || [ "$actual" = "$3" ] || fail "$1 has sha256 $actual, wanted $3: the file behind $2 has changed"
  printf '%s  %s\n' "$actual" "$1"
}

fetch_commit() {
  tree=$1.git
  format=sha1
  [ ${#3} = 40 ] || format=sha256
  git init --quiet --bare --object-format "$format" "$tree"
  # What a repository says about its own files must change nothing of them.
  printf '* -export-subst -export-ignore -text -eol -ident -filter -working-tree-encoding\n' > "$tree/info/attributes"
  brings() {
    git -C "$tree" -c http.proxy="$proxy" -c protocol.allow=never -c protocol.http.allow=always \
      -c protocol.https.allow=always -c http.followRedirects=true -c credential.helper= -c gc.auto=0 \
      fetch --quiet --no-tags --no-recurse-submodules "$2" "+$1:refs/artel/source" 2>&1 | sed 's/^/git: /'
    git -C "$tree" cat-file -e "$3^{commit}" 2>/dev/null
  }
  printf 'fetching %s of %s\n' "$4" "$2"
  brings "$4" "$2" "$3" || brings "$3" "$2" "$3" || fail "$2 gave no commit $3, neither by $4 nor by its id"
  ! git -C "$tree" ls-tree -r "$3" | grep -q '^160000 ' || fail "$2 has submodules, which are not fetched"
  git -C "$tree" -c tar.umask=0022 archive --format=tar "$3" > "$1.tar"
  time=$(git -C "$tree" show --no-patch --format=%ct "$3")
  ordinal=$(git -C "$tree" rev-list --count "$3")
  printf '{"commit":"%s","time":%s,"ordinal":%s}\n' "$3" "$time" "$ordinal" > "$1.json"
  printf 'commit %s, number %s, committed %s\n' "$3" "$ordinal" "$time"
  rm -rf "$tree"
}

# Has uscan follow debian/watch of TREE into FILES, which must leave what a source package begins with: ACTION TREE FILES.
fetch_watched() {
  [ -d "$2/debian" ] || { mkdir whole && mv "$2" whole/debian && mv whole "$2"; }
  which=--force-download
  [ "$1" = watch ] || which=--download-current-version
  # What a watch file has done with a new release is not done here.
  mkdir own
  printf '#!/bin/sh\n' > own/uupdate
  chmod 755 own/uupdate
  (
    PATH=$PWD/own:$PATH into=$PWD/$3
    export http_proxy=socks://127.0.0.1:1080 https_proxy=socks://127.0.0.1:1080
    export GIT_CONFIG_COUNT=4 GIT_CONFIG_KEY_0=http.proxy GIT_CONFIG_VALUE_0="$proxy" \
      GIT_CONFIG_KEY_1=protocol.allow GIT_CONFIG_VALUE_1=never GIT_CONFIG_KEY_2=protocol.http.allow \
      GIT_CONFIG_VALUE_2=always GIT_CONFIG_KEY_3=protocol.https.allow GIT_CONFIG_VALUE_3=always
    cd "$2"
    uscan --no-conf --check-dirname-level 0 "$which" --rename --verbose --destdir "$into" 2>&1
  ) || fail "uscan found nothing by debian/watch"
  rm -rf own
  for first in "$3"/*_*.orig.tar.*; do
    [ -f "$first" ] || fail "debian/watch led to no tarball of a release"
  done
}

# Fetches the sources and patches of the one spec in TREE that are addresses: TREE FILES MACROS.
fetch_specified() {
  tree=$1 files=$2 macros=$3
  spec=$(find "$tree" -maxdepth 1 -type f -name '*.spec')
  [ "$(printf '%s' "$spec" | grep -c .)" = 1 ] || fail "the tree needs one .spec in its first folder"
  set -- --define "_sourcedir $PWD/$tree"
  while IFS= read -r macro; do
    [ -z "$macro" ] || set -- "$@" --define "$macro"
  done << END
$macros
END
  rpmspec --parse "$@" "$spec" > parsed || fail "rpmspec cannot read $spec"
  sed -n 's/^\(source\|patch\)[0-9]*:[[:space:]]*\([^[:space:]]*\).*/\2/Ip' parsed > addresses
  while read -r address; do
    case $address in
      http://* | https://*) [ -f "$tree/${address##*/}" ] || fetch_file "$files/${address##*/}" "$address" "" ;;
    esac
  done < addresses
}

# What a tree names is found by what the tree runs: it must leave alone what was fetched before.
fetch_named() {
  before=$(find . -maxdepth 1 -type f -exec sha256sum -- {} +)
  mkdir "$2.tree" "$2.files"
  tar -xf "$3.tar" --no-same-owner -C "$2.tree"
  case $1 in
    spec) fetch_specified "$2.tree" "$2.files" "$4" ;;
    *) fetch_watched "$1" "$2.tree" "$2.files" ;;
  esac
  (
    cd "$2.files"
    [ -z "$(find . -mindepth 1 ! -type f)" ] || fail "something else than files came of the $1"
    [ -n "$(ls)" ] || fail "the $1 names no address"
    sha256sum -- *
    tar --sort=name --format=gnu --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=0644 -cf "../$2.files.tar" -- *
  )
  rm -rf "$2.tree" "$2.files" parsed addresses
  printf '%s\n' "$before" | sha256sum --check --strict --quiet || fail "what $3 runs changed other sources"
}

socat TCP-LISTEN:1080,bind=127.0.0.1,fork,reuseaddr UNIX-CONNECT:/run/gate/socks &
tries=0
until socat -u OPEN:/dev/null TCP:127.0.0.1:1080 2>/dev/null; do
  tries=$((tries + 1))
  [ $tries -lt 400 ] || fail "socat does not listen"
  sleep 0.05
done
while [ $# -gt 0 ]; do
  case $1 in
    git) fetch_commit "$2" "$3" "$4" "$5"; shift 5 ;;
    file) fetch_file "$2" "$3" "$4"; shift 4 ;;
    watch | watch-packaged | spec) fetch_named "$1" "$2" "$3" "$4"; shift 4 ;;
    *) fail "no kind of source: $1" ;;
  esac
done
