# Installs one environment from .debs. Root of the sandbox's namespace, with few rights: no mounts, no devices, no network.
# In the build directory lie `repository`, and `root` with /proc and /dev of its own. Arguments: the suite, mmdebstrap's
# variant; then the --include options.
set -eu
umask 022
suite=$1 variant=$2
shift 2
here=$PWD
chown 0:0 root root/dev root/dev/shm
chmod 1777 root/dev/shm

# Without a codename apt selects nothing as essential. The digests were checked before: `trusted=yes` checks none.
mkdir index
(cd repository && apt-ftparchive packages .) > index/Packages
apt-ftparchive -o "APT::FTPArchive::Release::Codename=$suite" -o "APT::FTPArchive::Release::Suite=$suite" \
  release index > Release
mv index/Packages Release repository/

# What differs between hosts: names and addresses copied from the host, and logs with dates.
cat > normalise.sh <<'HOOK'
set -eu
rm -rf "$1/etc/hostname" "$1/etc/resolv.conf"
printf 'artel\n' > "$1/etc/hostname"
: > "$1/etc/resolv.conf"
chmod 644 "$1/etc/hostname" "$1/etc/resolv.conf"
rm -rf "$1"/etc/apt/sources.list* "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/apt/* \
  "$1"/var/log/dpkg.log "$1"/var/log/alternatives.log "$1"/var/log/bootstrap.log "$1"/var/cache/ldconfig/aux-cache \
  "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap
HOOK

# /proc of the root is mounted already: dpkg must not try to give it another mode.
exec mmdebstrap --verbose --mode=root --format=directory --variant="$variant" "$@" --skip=check/empty \
  --aptopt='APT::Sandbox::User "root"' --dpkgopt=force-unsafe-io --dpkgopt=path-exclude=/proc \
  --customize-hook='sh ./normalise.sh "$1"' "$suite" root "deb [trusted=yes] copy://$here/repository ./"
