# Makes the root file system of an image and its tar file. Root of the sandbox's namespace, with few rights: no mounts, no
# devices. In the build directory lie `packages`, perhaps `files`, and `root` with /proc and /dev of its own; the arguments
# are the --include options.
set -eu
umask 022
here=$PWD
root=$here/root
chown 0:0 "$root" "$root/dev" "$root/dev/shm"
chmod 1777 "$root/dev/shm"

# What moves the date is found at one path by the tools and by what runs in the image; it is removed from the image again.
# Not below /run: what makes the image's folders copies every library that it was loaded with to /usr.
moved=/usr/lib/artel-date
if [ -n "${LD_PRELOAD:-}" ]; then
  mkdir "$moved"
  cp "$LD_PRELOAD" "$moved/libfaketime.so.1"
  export LD_PRELOAD="$moved/libfaketime.so.1"
fi
cat > "$here/begin.sh" <<HOOK
set -eu
[ ! -d $moved ] || { mkdir -p "\$1/usr/lib"; cp -r $moved "\$1/usr/lib/"; }
HOOK

# What differs between hosts goes; then come the recipe's files and, at last, its commands.
cat > "$here/end.sh" <<'HOOK'
set -eu
root=$1 here=$2
# Gives where a name in the image leads to, whose links are the image's own: to another file of this sandbox it leads never.
inside() { printf '%s%s\n' "$root" "$(chroot "$root" realpath -m "$1")"; }
etc=$(inside /etc)
rm -f "$(inside /etc/apt)/sources.list" "$etc/hostname" "$etc/hosts" "$etc/resolv.conf"
printf '%s\n' "$IMAGE_HOSTNAME" > "$etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost\n' "$IMAGE_HOSTNAME" > "$etc/hosts"
: > "$etc/resolv.conf"
chmod 644 "$etc/hostname" "$etc/hosts" "$etc/resolv.conf"
if [ -d "$here/files" ]; then
  (cd "$here/files" && find . -type f) > "$here/names"
  while IFS= read -r name; do
    target=$(inside "/$name")
    mkdir -p "${target%/*}"
    cp --no-preserve=mode,ownership,timestamps "$here/files/$name" "$target"
  done < "$here/names"
fi
if [ "$IMAGE_LOCALE" != C ]; then
  case $IMAGE_LOCALE in
    C.*) ;;
    *)
      printf '%s %s\n' "$IMAGE_LOCALE" "${IMAGE_LOCALE##*.}" > "$(inside /etc/locale.gen)"
      chroot "$root" locale-gen
      ;;
  esac
  printf 'LANG=%s\n' "$IMAGE_LOCALE" > "$(inside /etc/default/locale)"
fi
chroot "$root" sh -euxc "$IMAGE_SETUP"
HOOK

mkdir index
(cd packages && apt-ftparchive packages .) > index/Packages
# Without a codename apt selects nothing as essential. The digests were checked before: `trusted=yes` checks none.
apt-ftparchive -o "APT::FTPArchive::Release::Codename=$IMAGE_SUITE" -o "APT::FTPArchive::Release::Suite=$IMAGE_SUITE" \
  release index > Release
mv index/Packages Release packages/
# A root that has one /usr from its beginning. `usrmerge` provides the same name and moves the files itself.
for deb in packages/usr-is-merged_*.deb; do
  [ ! -e "$deb" ] || set -- "$@" --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr
done
mmdebstrap --verbose --mode=root --format=directory --variant="$IMAGE_VARIANT" "$@" --skip=check/empty \
  --setup-hook='sh ./begin.sh "$1"' \
  --customize-hook="sh '$here/end.sh' \"\$1\" '$here'" --aptopt='APT::Sandbox::User "root"' \
  --dpkgopt=force-unsafe-io --dpkgopt=path-exclude=/proc "$IMAGE_SUITE" root "deb [trusted=yes] copy://$here/packages ./"
rm -rf packages "$root/$moved" "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/apt/* \
  "$root"/var/log/dpkg.log "$root"/var/log/alternatives.log "$root"/var/log/bootstrap.log \
  "$root"/var/cache/ldconfig/aux-cache "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap

tar --sort=name --numeric-owner --format=posix --xattrs --xattrs-include='security.*' \
  --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' --mtime="@$SOURCE_DATE_EPOCH" --clamp-mtime \
  --one-file-system --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' --exclude='./run/*' \
  -C root -cf "$IMAGE_STEM.tar" .
