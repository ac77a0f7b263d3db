# Takes the tree that an installation left, and hashes it. Root of a mapped range, in namespaces of its own: whatever ran in the
# tree is gone, and nothing of it is run or followed here. Arguments: the folder, the build directory, the epoch, how many
# MiB the tree's files may hold, holes included.
set -eu
umask 022
place=$2 epoch=$3 mib_max=$4
cd "$1"
here=$(pwd -P)

# Its scripts had rights over the folders on the way to it, and may have put links there.
for folder in root root/dev root/proc; do
  [ "$(realpath -e "upper$place/$folder")" = "$here/upper$place/$folder" ] || {
    echo "artel:refused they put something else in place of /$folder"
    exit 0
  }
done
mv "upper$place/root" root
# What the sandbox mounted things on.
rm -rf root/dev/shm
rm -f root/dev/null root/dev/zero root/dev/full root/dev/random root/dev/urandom
rm -rf upper work merged machine environment filter refused enter ask

mib=$(du -s --apparent-size --block-size=1M root)
mib=${mib%%[!0-9]*}
if [ "$mib" -gt "$mib_max" ]; then
  echo "artel:refused their files have $mib MiB in all, holes included, over $mib_max MiB"
  exit 0
fi
if [ -n "$(find root -xdev -type s -print -quit)" ]; then
  echo "artel:refused they left a socket, which no archive keeps"
  exit 0
fi
find root -xdev -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +
tree=$(tar --sort=name --numeric-owner --format=gnu -C root -cf - . | sha256sum)
kib=$(du -sk root)
echo "artel:tree ${tree%% *}"
echo "artel:kib ${kib%%[!0-9]*}"
