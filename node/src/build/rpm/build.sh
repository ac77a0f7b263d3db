for macro in "$@"; do
  set -- "$@" --define "$macro"
  shift
done
# The time of the newest changelog entry, or the environment's where there is none.
changed=$(rpmspec -q --srpm --define "_topdir $top" "$@" --qf '%{CHANGELOGTIME}' "$spec")
case $changed in
  '' | *[!0-9]*) SOURCE_DATE_EPOCH=$epoch ;;
  *) SOURCE_DATE_EPOCH=$changed ;;
esac
export SOURCE_DATE_EPOCH

# What requires RPMs is not looked up: the environment is made of Debian packages. The compiler is told to forget where it
# ran; rpmbuild sets RPM_BUILD_DIR for each of its scripts, so the flags that stand in the header do not vary.
build() {
  folder=$1
  shift
  rpmbuild --nodeps --define "_topdir $folder" --define "_tmppath $folder/tmp" --dbpath "$folder/tmp/db" \
    --define '_buildhost artel.invalid' --define 'use_source_date_epoch_as_buildtime 1' \
    --define 'clamp_mtime_to_source_date_epoch 1' --define 'source_date_epoch_from_changelog 0' \
    --define '_srcdefattr (-,root,root)' --define '_binary_payload w19.zstdio' --define '_source_payload w19.zstdio' \
    --define 'optflags -O2 -g -ffile-prefix-map=$RPM_BUILD_DIR=/usr/src/debug' "$@"
}
build "$top" "$@" -bb "$spec"
if [ "$word" = spec ]; then
  build "$fixed" "$@" --define '_smp_build_ncpus 1' -bs "$fixed/SOURCES/$start"
  mv -- "$fixed"/SRPMS/*.src.rpm "$place/"
  (cd "$place" && ls -- *.src.rpm) > "$top/tmp/list"
else
  : > "$top/tmp/list"
fi
find "$top/RPMS" -type f -name '*.rpm' -printf '%f\n' -exec mv -- {} "$place/" ';' >> "$top/tmp/list"
mv "$top/tmp/list" "$place/$list"
