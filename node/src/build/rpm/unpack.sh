# Arguments: spec or srpm; that file; the time for packages without a changelog; the list to write; then macros, each NAME VALUE.
set -eu
word=$1 start=$2 epoch=$3 list=$4
shift 4
place=$PWD
top=$place/rpmbuild
# The one path that is the same in every attempt: the expanded spec, paths and all, stands in a source RPM's header.
fixed=$HOME/rpmbuild
mkdir -p "$top/SOURCES" "$top/tmp" "$fixed/SOURCES" "$fixed/tmp"
if [ "$word" = srpm ]; then
  rpm --dbpath "$top/tmp/db" --define "_topdir $top" --nosignature -i "$start"
  set -- "$top/SPECS" "$@"
  spec=
  for spec in "$1"/*.spec; do :; done
  [ -f "$spec" ] || { echo "$start has no spec"; exit 1; }
  shift
else
  spec=$top/SOURCES/$start
  for file in *; do
    [ ! -f "$file" ] || cp -p -- "$file" "$top/SOURCES/"
    [ ! -f "$file" ] || cp -p -- "$file" "$fixed/SOURCES/"
  done
fi
