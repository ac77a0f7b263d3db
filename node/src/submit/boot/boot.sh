# Starts an image in QEMU, without network, and waits for a login prompt on its serial console. Arguments: the image, its
# SHA-256, memory in MiB, seconds. Leaves boot.json, in which nothing depends on the machine that it ran on.
set -eu
image=$1 sha256=$2 memory=$3 within=$4
console=console.log
: > "$console"
# The clock of what is started is its own; a moved date around the emulator would only slow it down.
unset LD_PRELOAD FAKETIME
case $image in *.iso) drive="-cdrom $image" ;; *) drive="-drive file=$image,format=raw" ;; esac
qemu-system-x86_64 -accel tcg -m "$memory" -nodefaults -display none -monitor none -nic none -no-reboot \
  -rtc "base=2026-01-01T00:00:00" -serial "file:$console" $drive &
emulator=$!
tail -f "$console" &
follower=$!

finish() {
  kill "$emulator" "$follower" 2>/dev/null || true
  wait 2>/dev/null || true
  printf '\n%s; the console ends with:\n' "$2"
  tail -n 3 "$console"
  echo
  exit "$1"
}

waited=0
until grep -aqE '^[^ ]+ login: ?' "$console"; do
  kill -0 "$emulator" 2>/dev/null || finish 1 "the machine stopped before a login prompt"
  [ "$waited" -lt "$within" ] || finish 1 "no login prompt within $within s"
  sleep 1
  waited=$((waited + 1))
done
kernel=$(grep -aoE 'Linux version [0-9A-Za-z.+~-]+' "$console" | head -n 1)
prompt=$(grep -aoE '^[0-9A-Za-z.-]+ login:' "$console" | head -n 1)
printf '{"booted":true,"image":"%s","kernel":"%s","prompt":"%s","sha256":"%s"}\n' \
  "$image" "$kernel" "$prompt" "$sha256" > boot.json
finish 0 "login prompt after about $waited s"
