# The first process of a sandbox: root of a mapped range of users, pid 1. Arguments: the attempt's folder, the
# environment's root, the build directory, the build user's number, "readable" or "as-is", the domain; then the command
# that enters the sandbox proper.
set -eu
umask 022
# The lifeline: a pipe that only the daemon holds.
exec 3<&0 </dev/null
folder=$1 environment=$2 place=$3 uid=$4 modes=$5 domain=$6
shift 6
{ cat <&3 >/dev/null; kill -KILL -1; } 2>/dev/null >/dev/null &

cd "$folder"
chown -R "$uid:$uid" "upper$place" upper/build/home
[ ! -d upper/usr/lib/locale ] || chown "$uid:$uid" upper/usr/lib/locale/*
domainname "$domain"
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
