# Makes a Debian source package of fetched trees: SUFFIX TIME TARBALL SAID. The suffix of a CI version and its time, or
# nothing and 0; the name of a release's tarball, or nothing; the words for the changelog. What uscan brought, if that is
# there, has the source package's own names, and perhaps a version that the changelog does not know.
set -eu
umask 022
suffix=$1 time=$2 tarball=$3 said=$4

fail() {
  printf 'error: %s\n' "$*"
  exit 1
}

mkdir tree
release=
if [ -f upstream.files.tar ]; then
  tar -xf upstream.files.tar
  tarball=$(find . -maxdepth 1 -name '*_*.orig.tar.*' ! -name '*.asc' -printf '%P')
  release=${tarball#*_}
  release=${release%.orig.tar.*}
fi
if [ -n "$tarball" ]; then
  tar -xf "$tarball" --strip-components=1 --no-same-owner -C tree
  for part in *_*.orig-*.tar.*; do
    case $part in \** | *.asc) continue ;; esac
    component=${part#*.orig-}
    mkdir "tree/${component%%.*}"
    tar -xf "$part" --strip-components=1 --no-same-owner -C "tree/${component%%.*}"
  done
else
  tar -xf upstream.tar -C tree
fi
if [ -f packaging.tar ]; then
  mkdir packaging
  tar -xf packaging.tar -C packaging
  rm -rf tree/debian
  if [ -d packaging/debian ]; then mv packaging/debian tree/debian; else mv packaging tree/debian; fi
fi
[ -f tree/debian/changelog ] || fail "there is no debian/changelog, neither in the packaging nor upstream"
cd tree
field() { dpkg-parsechangelog -S "$1"; }
source=$(field Source)
version=$(field Version)
[ "$time" != 0 ] || time=$(field Timestamp)
export SOURCE_DATE_EPOCH="$time"
case $version in *:*) epoch=${version%%:*}: ;; *) epoch= ;; esac
upstream=${version#*:}
revision=
case $upstream in *-*) revision=-${upstream##*-} upstream=${upstream%-*} ;; esac
known=$upstream
upstream=$upstream$suffix
if [ -n "$release" ] && [ "$release" != "$known" ]; then
  dpkg --compare-versions "$release" gt "$known" || fail "upstream's $release is older than the packaging's $known"
  [ -z "$revision" ] || revision=-1
  upstream=$release said="New upstream release. $said"
fi
if [ "$upstream" != "$known" ]; then
  {
    printf '%s (%s) %s; urgency=medium\n\n  * %s\n\n' "$source" "$epoch$upstream$revision" "$(field Distribution)" "$said"
    printf ' -- %s  %s\n\n' "$(field Maintainer)" "$(LC_ALL=C date -u -R -d "@$time")"
    cat debian/changelog
  } > ../changelog
  mv ../changelog debian/changelog
fi
find . -exec touch --no-dereference --date="@$time" {} +
same="--sort=name --format=gnu --mtime=@$time --owner=0 --group=0 --numeric-owner"
if [ -n "$revision" ]; then
  grep -qs quilt debian/source/format || fail "version $version has a revision: debian/source/format must be 3.0 (quilt)"
  if [ -n "$release" ]; then
    [ "$tarball" = "${source}_$release.orig.tar.${tarball##*.tar.}" ] || fail "$tarball is no tarball of $source"
  elif [ -n "$tarball" ]; then
    cp "../$tarball" "../${source}_$upstream.orig.tar.${tarball##*.tar.}"
  else
    # shellcheck disable=SC2086 # the options are words
    tar $same --mode=u+rwX,go+rX,go-w --exclude=./debian --transform="flags=r;s,^\.,$source-$upstream," -cf - . \
      | xz --threads=1 > "../${source}_$upstream.orig.tar.xz"
  fi
fi
cd ..
dpkg-source --threads-max=1 --build tree
# shellcheck disable=SC2086
tar $same --mode=0644 -cf source.tar -- *.dsc "$source"_*.tar.*
