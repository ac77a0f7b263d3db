# Installs one environment from .debs, as root of a mapped range, without network. Arguments: the folder (with `repository`
# in it), the suite, the epoch, mmdebstrap's variant; then the --include options.
set -eu
umask 022
exec 3<&0 </dev/null
folder=$1 suite=$2 epoch=$3 variant=$4
shift 4
{ cat <&3 >/dev/null; kill -KILL -1; } 2>/dev/null >/dev/null &

cd "$folder"
# Without a codename apt selects nothing as essential. The digests were checked before: `trusted=yes` checks none.
mkdir index root
(cd repository && apt-ftparchive packages .) > index/Packages
apt-ftparchive -o "APT::FTPArchive::Release::Codename=$suite" -o "APT::FTPArchive::Release::Suite=$suite" \
  release index > Release
mv index/Packages Release repository/

# What differs between hosts: names and addresses copied from the host, and logs with dates.
cat > normalise.sh <<'HOOK'
set -eu
printf 'artel\n' > "$1/etc/hostname"
: > "$1/etc/resolv.conf"
chmod 644 "$1/etc/hostname" "$1/etc/resolv.conf"
rm -rf "$1"/etc/apt/sources.list* "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/apt/* \
  "$1"/var/log/dpkg.log "$1"/var/log/alternatives.log "$1"/var/log/bootstrap.log "$1"/var/cache/ldconfig/aux-cache \
  "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap
HOOK

SOURCE_DATE_EPOCH=$epoch mmdebstrap --mode=root --format=directory --variant="$variant" "$@" \
  --aptopt='APT::Sandbox::User "root"' --dpkgopt=force-unsafe-io --customize-hook='sh ./normalise.sh "$1"' \
  "$suite" root "deb [trusted=yes] copy://$folder/repository ./" >&2

find root -xdev -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +
tree=$(tar --sort=name --numeric-owner --format=gnu -C root -cf - . | sha256sum)
kib=$(du -sk root)
rm -rf repository index normalise.sh
echo "artel:tree ${tree%% *}"
echo "artel:kib ${kib%%[!0-9]*}"
