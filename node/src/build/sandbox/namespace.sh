# The first process of a sandbox: root of a mapped range of users, pid 1. Arguments: the attempt's folder, the
# environment's root, the build directory, the build user and its number, the host name, "readable" or "as-is"; then the
# command that enters the sandbox proper.
set -eu
umask 022
# The lifeline: a pipe that only the daemon holds.
exec 3<&0 </dev/null
folder=$1 environment=$2 place=$3 user=$4 uid=$5 host=$6 modes=$7
shift 7
{ cat <&3 >/dev/null; kill -KILL -1; } 2>/dev/null >/dev/null &

cd "$folder"
mkdir upper work merged upper/etc upper/build
mv inputs "upper$place"
mkdir upper/build/home
chown -R "$uid:$uid" "upper$place" upper/build/home
[ ! -f "$environment/etc/passwd" ] || cp "$environment/etc/passwd" upper/etc/passwd
[ ! -f "$environment/etc/group" ] || cp "$environment/etc/group" upper/etc/group
printf '%s:x:%s:%s::/nonexistent:/bin/sh\n' "$user" "$uid" "$uid" >> upper/etc/passwd
printf '%s:x:%s:\n' "$user" "$uid" >> upper/etc/group
printf '%s\n' "$host" > upper/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost\n' "$host" > upper/etc/hosts
mount -t overlay overlay -o "userxattr,lowerdir=$environment,upperdir=$folder/upper,workdir=$folder/work" merged
# No user namespace below this one: a build would get capabilities in it.
echo 0 > /proc/sys/user/max_user_namespaces

{
  while sleep 1; do
    blocks=$(du -sk upper 2>/dev/null) && inodes=$(du -s --inodes upper 2>/dev/null) || continue
    echo "artel:disk ${blocks%%[!0-9]*} ${inodes%%[!0-9]*}" >&2
  done
} 3<&- >/dev/null &

set +e
"$@" 3<&- &
wait $!
code=$?
# Everything of the build is gone now, so nothing can swap a name under chmod's feet; it follows no link that it meets.
[ "$modes" = as-is ] || chmod -R u+rwX,go+rX "upper$place"
exit $code
