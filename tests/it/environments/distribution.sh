# Makes a small distribution of RPMs of this machine's own programs, signed, and copies of it that are wrong. Argument: a new
# folder. There come key.asc, other.asc and the repositories good, unsigned, changed, package-unsigned and package-foreign.
set -eu
umask 022
mkdir "$1"
cd "$1"
here=$PWD
export GNUPGHOME=$here/keys LC_ALL=C
mkdir -m 700 keys
for name in distribution other; do
  gpg --batch --quiet --passphrase '' --quick-gen-key "$name <$name@example.invalid>" rsa2048 sign never
done
gpg --armor --export distribution@ > key.asc
gpg --armor --export other@ > other.asc

# What /usr holds of files, with what they are linked to and the libraries that they load.
with_libraries() {
  while read -r file; do
    printf '%s\n' "$file" "$(readlink -f "$file")"
    ldd "$file" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
      printf '%s\n' "$library" "$(readlink -f "$library")"
    done
  done | sed -E 's,^/(bin|lib|lib64)/,/usr/\1/,' | sort -u
}

# Makes the package $1, which requires $2 and runs $3 when it is installed, of the folder stage-$1.
package() {
  cat > "$1.spec" <<SPEC
Name: $1
Version: 1
Release: 1
Summary: A part of a small distribution
License: Apache-2.0
BuildArch: noarch
AutoReqProv: no
${2:+Requires: $2}
${3:+Provides: /bin/sh}
%define _binaries_in_noarch_packages_terminate_build 0
%define __os_install_post %{nil}
%description
A part of a small distribution.
%install
cp -a $here/stage-$1/. %{buildroot}/
${3:+%post
$3}
%files
$(cd "stage-$1" && find . -mindepth 1 -type d -printf '%%dir "/%P"\n' -o -printf '"/%P"\n')
SPEC
  rpmbuild --quiet --define "_topdir $here/top" --define '_binary_payload w3.zstdio' -bb "$1.spec" 2> "$1.log" ||
    { cat "$1.log"; exit 1; }
}

stage() {
  mkdir "stage-$1"
  sed 's,^/,,' | tar -cf - -C / --no-recursion -T - | tar -xf - -C "stage-$1"
}

root=stage-filesystem
mkdir "$root"
(cd "$root" && mkdir -p etc usr/bin usr/lib usr/lib64 tmp var/tmp var/log proc dev sys run root home)
chmod 1777 "$root/tmp" "$root/var/tmp"
for name in bin lib lib64; do ln -s "usr/$name" "$root/$name"; done
ln -s usr/bin "$root/sbin"
ln -s bin "$root/usr/sbin"
echo root:x:0:0:root:/root:/bin/sh > "$root/etc/passwd"
echo root:x:0: > "$root/etc/group"
package filesystem '' ''

for name in bash dash sh cat ls cp mv rm mkdir rmdir ln chmod chown touch date env id uname sort uniq head tail tr cut wc tee \
  test true false printf echo sleep basename dirname mktemp readlink sha256sum stat install sed grep find xargs tar gzip cmp setpriv; do
  echo "/usr/bin/$name"
done | with_libraries | tee shell.list | stage shell
package shell filesystem 'echo "installed as $(id -u)" > /etc/shell-installed'

{
  printf '%s\n' /usr/bin/rpmbuild /usr/bin/rpm /usr/bin/rpmspec | with_libraries
  find /usr/lib/rpm
} | grep -vxF -f shell.list | stage rpm-build
package rpm-build shell ''

dpkg -L libfaketime | grep '/libfaketime\.so' | stage libfaketime
package libfaketime shell ''

sign_package() { rpmsign --define "_gpg_name $1" --define "__gpg $(command -v gpg)" --addsign "$2" > sign.log 2>&1 || { cat sign.log; exit 1; }; }
index() {
  rm -rf "$1/repodata"
  createrepo_c --quiet "$1"
  gpg --batch --quiet --local-user distribution@ --armor --detach-sign "$1/repodata/repomd.xml"
}
mkdir good
cp top/RPMS/noarch/*.rpm good/
for file in good/*.rpm; do sign_package distribution@ "$file"; done
index good
for name in unsigned changed package-unsigned package-foreign; do cp -r good "$name"; done
rm unsigned/repodata/repomd.xml.asc
sed -i 's/<revision>/<revision>9/' changed/repodata/repomd.xml
cp top/RPMS/noarch/shell-1-1.noarch.rpm package-unsigned/
index package-unsigned
cp top/RPMS/noarch/shell-1-1.noarch.rpm package-foreign/
sign_package other@ package-foreign/shell-1-1.noarch.rpm
index package-foreign
gpgconf --kill all
