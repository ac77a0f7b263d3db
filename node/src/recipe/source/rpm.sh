# Lays out a spec and its sources of fetched trees: SUFFIX TIME TARBALL SAID MACRO.., as for Debian packages; each macro is
# NAME VALUE. The version with epoch and release goes into the file `evr`.
set -eu
umask 022
suffix=$1 time=$2 tarball=$3 said=$4
shift 4
for macro; do
  set -- "$@" --define "$macro"
  shift
done

fail() {
  printf 'error: %s\n' "$*"
  exit 1
}

printf '%s\n' "$said"
mkdir tree out
packaging=tree
if [ -f upstream.files.tar ]; then
  tar -xf upstream.files.tar -C tree
elif [ -n "$tarball" ]; then
  tar -xf "$tarball" --strip-components=1 --no-same-owner -C tree
else
  tar -xf upstream.tar -C tree
fi
if [ -f packaging.tar ]; then
  mkdir packaging
  tar -xf packaging.tar -C packaging
  packaging=packaging
fi
found=$(find "$packaging" -maxdepth 1 -type f -name '*.spec')
[ "$(printf '%s' "$found" | grep -c .)" = 1 ] || fail "the packaging needs one .spec in its first folder"
spec=out/$(basename "$found")
if [ -n "$suffix" ]; then
  sed "s/^\([Vv]ersion:[[:space:]]*[^[:space:]]*\).*/\1$suffix/" "$found" > "$spec"
else
  cp "$found" "$spec"
fi
set -- --define "_sourcedir $PWD/$packaging" "$@" "$spec"
rpmspec --query --srpm --queryformat '%|epoch?{%{epoch}:}|%{version}-%{release}' "$@" > out/evr
name=$(rpmspec --query --srpm --queryformat '%{name}-%{version}' "$@")
first=
rpmspec --parse "$@" | sed -n 's/^\([Ss]ource\|[Pp]atch\)[0-9]*:[[:space:]]*//p' \
  | sed 's,.*/,,' > names
while read -r file; do
  if [ -f upstream.files.tar ] && [ -f "tree/$file" ]; then
    cp "tree/$file" "out/$file"
  elif [ -n "$first" ] || [ -f "$packaging/$file" ]; then
    cp "$packaging/$file" "out/$file"
  elif [ -n "$tarball" ]; then
    [ "$file" = "$tarball" ] || fail "the spec's first source is $file, the recipe's tarball is $tarball"
    cp "$tarball" "out/$file"
  else
    case $file in
      *.tar.gz | *.tgz) pack='gzip -n' ;;
      *.tar.xz) pack='xz --threads=1' ;;
      *.tar) pack=cat ;;
      *) fail "the first source $file is no .tar, .tar.gz or .tar.xz" ;;
    esac
    when=$time
    [ "$when" != 0 ] || when=$SOURCE_DATE_EPOCH
    tar --sort=name --format=gnu --mtime="@$when" --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w \
      --transform="flags=r;s,^\.,$name," -C tree -cf - . | $pack > "out/$file"
  fi
  first=$file
done < names
tar --sort=name --format=gnu --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=0644 -C out -cf source.tar -- $(ls out)
