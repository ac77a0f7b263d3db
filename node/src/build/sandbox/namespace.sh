# The first process of a sandbox: root of a mapped range of users, pid 1. Arguments: the attempt's folder, the build
# directory, the build user's number, "readable" or "as-is", how many processes, the domain; then the command that enters
# the sandbox proper, which finds the filters of system calls at 4 and 6 and the last step into the sandbox at 5.
set -eu
umask 022
exec 3<&0 </dev/null
folder=$1 place=$2 uid=$3 modes=$4 processes=$5 domain=$6
shift 6
cd "$folder"

# Gives how many KiB the files without a name have that somebody has open, and how many more there may be which nobody has:
# they are only mapped, or lie in a socket's queue. Every thread may have open files of its own, and a first thread that ended
# has none.
nameless() {
  {
    find -L /proc/[0-9]*/task/[0-9]*/fd -maxdepth 1 -type f -links 0 -printf 'open %D %i %k\n' -o \
      -type s -printf 'socket %p\n'
    sed -n 's/^[^ ]* [^ ]* [^ ]* \([^ ]*\) \([0-9]*\) .* (deleted)$/mapped \1 \2/p' /proc/[0-9]*/task/[0-9]*/maps
  } 2>/dev/null | awk -v devices=" $devices " '
    $1 == "socket" {
      sub("/fd/", "/fdinfo/", $2)
      while ((getline told < $2) > 0) if (told ~ /^scm_fds:[ \t]*[1-9]/) kept++
      close($2)
      next
    }
    index(devices, " " $2 " ") == 0 || $3 in seen { next }
    { seen[$3] }
    $1 == "open" { kib += $4 }
    $1 == "mapped" { kept++ }
    END { print kib + 0, kept + 0 }'
}

# Counts what is used, once for each line that the daemon writes. `du` fails when files go meanwhile, and counts the rest.
count() {
  while read -r _; do
    blocks=$(du -sk upper 2>/dev/null) || :
    files=$(du -s --inodes upper 2>/dev/null) || :
    unnamed=$(nameless)
    echo "artel:disk $((${blocks%%[!0-9]*} + ${unnamed% *})) ${files%%[!0-9]*} ${unnamed#* }" >&2
  done
}
# The lifeline: a pipe that only the daemon holds.
{ cat <&3 >ask; kill -KILL -1; } 2>/dev/null >/dev/null &

chown -R "$uid:$uid" "upper$place" upper/build/home
[ ! -d upper/usr/lib/locale ] || chown "$uid:$uid" upper/usr/lib/locale/*
domainname "$domain"
# Relative names: the options can be read in the sandbox.
# What a build leaves is thrown away or copied: without `volatile` the kernel would write the whole disk out at its end (Linux 5.10).
layers=lowerdir=environment,upperdir=upper,workdir=work
mount -t overlay overlay -o "userxattr,volatile,$layers" merged 2>/dev/null ||
  mount -t overlay overlay -o "userxattr,$layers" merged
# What the files of a build are known by, among all that processes have open or mapped: by number, and as in their maps.
devices=$(stat -c '%d %Hd:%Ld' merged merged/etc/hostname upper | while read -r number pair; do
  printf '%s %02x:%02x ' "$number" "${pair%:*}" "${pair#*:}"
done)
count 3<&- <ask >/dev/null &
# No user namespace below this one: a build would get capabilities in it.
echo 0 > /proc/sys/user/max_user_namespaces

set +e
{
  # Shells differ in how they name the limit of processes: `-u`, or `-p` where that is no pipe's size.
  ulimit -c 0 && { ulimit -u "$processes" 2>/dev/null || ulimit -p "$processes"; } && exec "$@" 3<&- 4<filter 5<enter 6<refused
} &
wait $!
code=$?
# Everything of the build is gone now, so nothing can swap a name under chmod's feet; it follows no link that it meets.
[ "$modes" = as-is ] || chmod -R u+rwX,go+rX "upper$place"
exit $code
