# Installs one environment from RPMs. Root of the sandbox's namespace, with few rights: no mounts, no devices, no network.
# In the build directory lie `repository`, and `root` with /proc and /dev of its own. Argument: what $releasever stands for.
set -eu
umask 022
release=$1
here=$PWD
chown 0:0 root root/dev root/dev/shm
chmod 1777 root/dev/shm

# Digests and signatures were checked before. rpm takes its times from SOURCE_DATE_EPOCH, and must not give the mounts in
# the root another mode.
mkdir home empty
export HOME=$here/home PYTHONHASHSEED=0
printf '%s\n' '%_dbpath /var/lib/rpm' '%_db_backend sqlite' '%_netsharedpath /proc:/sys:/dev' '%_pkgverify_level digest' \
  > home/.rpmmacros
cat > dnf.conf <<CONF
[main]
reposdir=$here/empty
varsdir=$here/empty
cachedir=/var/cache/dnf
persistdir=/var/lib/dnf
logdir=/var/log
plugins=0
install_weak_deps=0
best=1
gpgcheck=0
keepcache=0
CONF
dnf -y -c "$here/dnf.conf" --installroot="$here/root" --releasever="$release" install "$here"/repository/*.rpm

# A write-ahead log would need a file beside the database that is never the same, and without which a build cannot read it.
python3 - root/var/lib/rpm/rpmdb.sqlite <<'PYTHON'
import sqlite3, sys
mode = sqlite3.connect(sys.argv[1]).execute("PRAGMA journal_mode=DELETE").fetchone()[0]
sys.exit(None if mode == "delete" else "the database of packages was not closed")
PYTHON

# What differs between hosts: names and addresses, logs with dates, what was only for this run. It all happens in the
# sandbox: a link that a script left leads nowhere else.
(
  cd root
  rm -rf var/lib/rpm/rpmdb.sqlite-wal var/lib/rpm/rpmdb.sqlite-shm var/lib/rpm/.rpm.lock var/lib/dnf var/cache/dnf \
    var/log/dnf*.log var/log/hawkey.log var/cache/ldconfig/aux-cache etc/hostname etc/resolv.conf
  mkdir -p etc
  printf 'artel\n' > etc/hostname
  : > etc/resolv.conf
  chmod 644 etc/hostname etc/resolv.conf
)
