# The first process of a sandbox: root of a mapped range of users, pid 1. Arguments: the attempt's folder, the build
# directory, the build user's number, "readable" or "as-is", how many processes, the domain; then the command that enters
# the sandbox proper, which finds the filters of system calls at 4 and 6 and the last step into the sandbox at 5.
set -eu
umask 022
exec 3<&0 </dev/null
folder=$1 place=$2 uid=$3 modes=$4 processes=$5 domain=$6
shift 6
cd "$folder"

# Counts what is used, and what was ever written, once for each line that the daemon writes: what has a name, what has none
# but is open somewhere, and how many files have no name, are open nowhere, and are mapped. `du` fails when files go
# meanwhile, and counts the rest.
count() {
  while read -r _; do
    blocks=$(du -sk upper 2>/dev/null) || :
    files=$(du -s --inodes upper 2>/dev/null) || :
    unnamed=0 mapped=0 seen=' '
    while read -r inode kib; do
      unnamed=$((unnamed + kib)) seen="$seen$inode "
    done <<OPEN
$(find -L /proc/[0-9]*/fd -maxdepth 1 -type f -links 0 -printf '%D %i %k\n' 2>/dev/null | sed -n "s/^$device //p" | sort -u)
OPEN
    for inode in $(sed -n 's/^\([^ ]* \)\{4\}\([0-9]*\) *\/.* (deleted)$/\2/p' /proc/[0-9]*/maps 2>/dev/null | sort -u); do
      case $seen in *" $inode "*) ;; *) mapped=$((mapped + 1)) ;; esac
    done
    written=0
    for process in /proc/[0-9]*/io; do
      while read -r what bytes; do
        case $what in write_bytes:) written=$((written + bytes)) ;; esac
      done < "$process" || :
    done 2>/dev/null
    echo "artel:disk $((${blocks%%[!0-9]*} + unnamed)) ${files%%[!0-9]*} $written $mapped" >&2
  done
}
# The lifeline: a pipe that only the daemon holds.
{ cat <&3 >ask; kill -KILL -1; } 2>/dev/null >/dev/null &

chown -R "$uid:$uid" "upper$place" upper/build/home
[ ! -d upper/usr/lib/locale ] || chown "$uid:$uid" upper/usr/lib/locale/*
domainname "$domain"
# Relative names: the options can be read in the sandbox.
mount -t overlay overlay -o userxattr,lowerdir=environment,upperdir=upper,workdir=work merged
# What the files of a build are known by, among all that processes have open.
device=$(stat -c %d merged/etc/hostname)
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
