# Root of a user namespace installs one package with apt-get into a scratch root. Arguments: the environment's root, the
# scratch folder (with artel.sources and artel.gpg), the package and its version (without epoch, as in the file's name).
set -eu
environment=$1 scratch=$2 package=$3 version=$4
cd "$scratch"
mkdir upper work root
mount -t overlay overlay -o "userxattr,lowerdir=$environment,upperdir=$scratch/upper,workdir=$scratch/work" root
mount -t proc proc root/proc
mount --rbind /dev root/dev
mkdir -p root/etc/apt/keyrings root/etc/apt/sources.list.d
cp artel.gpg root/etc/apt/keyrings/artel.gpg
chmod 644 root/etc/apt/keyrings/artel.gpg
cp artel.sources root/etc/apt/sources.list.d/artel.sources
# A home of the machine's proxy settings, should its loopback need none.
printf 'Acquire::http::Proxy::127.0.0.1 "DIRECT";\n' > root/etc/apt/apt.conf.d/99artel
# The namespace has no other users to drop rights to.
printf 'APT::Sandbox::User "root";\n' >> root/etc/apt/apt.conf.d/99artel
# Services must not start in a scratch root.
printf '#!/bin/sh\nexit 101\n' > root/usr/sbin/policy-rc.d
chmod 755 root/usr/sbin/policy-rc.d

apt() {
  chroot root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    apt-get -y -o APT::Install-Recommends=false -o APT::Keep-Downloaded-Packages=true "$@"
}

apt update
full=$(chroot root apt-cache madison "$package" | awk -F' *[|] *' -v v="$version" \
  '{ plain = $2; sub(/^[0-9]+:/, "", plain); if (plain == v) { print $2; exit } }')
[ -n "$full" ] || { echo "the mirror does not offer $package $version" >&2; exit 1; }
# The file as apt takes it from the mirror alone, by the mirror's signature.
mkdir root/fetched
chroot root /usr/bin/env -i -C /fetched PATH=/usr/sbin:/usr/bin:/sbin:/bin apt-get download "$package=$full"
file=$(cd root/fetched && ls)
if ! apt install --reinstall --allow-downgrades "$package=$full"; then
  # It depends on packages that the environment lacks: add the machine's own sources, and try once more.
  echo "adding the machine's own sources for dependencies"
  cp /etc/apt/sources.list root/etc/apt/sources.list 2>/dev/null || :
  cp /etc/apt/sources.list.d/* root/etc/apt/sources.list.d/ 2>/dev/null || :
  cp /etc/apt/apt.conf.d/* root/etc/apt/apt.conf.d/ 2>/dev/null || :
  cp /etc/apt/keyrings/* root/etc/apt/keyrings/ 2>/dev/null || :
  cp /usr/share/keyrings/* root/usr/share/keyrings/ 2>/dev/null || :
  cp /etc/resolv.conf /etc/hosts root/etc/ 2>/dev/null || :
  cp artel.sources root/etc/apt/sources.list.d/artel.sources
  apt update || :
  # Those may offer the same version with other bytes.
  apt install --reinstall --allow-downgrades "/fetched/$file"
fi
status=$(chroot root dpkg-query -W -f '${db:Status-Status} ${Version}' "$package")
[ "$status" = "installed $full" ] || { echo "dpkg says: $status" >&2; exit 1; }
sum=$(sha256sum "root/fetched/$file")
echo "artel-installed ${sum%% *}"
