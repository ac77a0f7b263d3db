# Makes the formats that are asked for from the tar file. All that a tool would invent is given: times, identifiers, sizes.
identifier=$(printf '%s %s' "$IMAGE_STEM" "$SOURCE_DATE_EPOCH" | sha256sum |
  sed -E 's/^(.{8})(.{4})(.{4})(.{4})(.{12}).*/\1-\2-\3-\4-\5/')
label=$(printf '%.16s' "$IMAGE_STEM")

pack_squashfs() {
  [ ! -e "$IMAGE_STEM.squashfs" ] || return 0
  mksquashfs - "$IMAGE_STEM.squashfs" -tar -comp zstd -Xcompression-level 9 -b 256K -mem 256M -noappend -no-progress \
    -root-mode 755 -root-uid 0 -root-gid 0 < "$IMAGE_STEM.tar"
}

# mke2fs sorts the names of each folder, but copies the times of its source: when a file was last looked at and when its
# inode was made are this node's. So every used inode gets the image's time afterwards.
pack_ext4() {
  mkdir tree
  tar -C tree --numeric-owner --xattrs --xattrs-include='security.*' -xf "$IMAGE_STEM.tar"
  mib=$(($(stat -c %s "$IMAGE_STEM.tar") * 5 / 4 / 1048576 + 64))
  export E2FSPROGS_FAKE_TIME="$SOURCE_DATE_EPOCH"
  mke2fs -q -t ext4 -d tree -m 1 -U "$identifier" -L "$label" \
    -E "hash_seed=$identifier,lazy_itable_init=0,lazy_journal_init=0,nodiscard" "$IMAGE_STEM.ext4" "${mib}M"
  rm -rf tree
  dumpe2fs "$IMAGE_STEM.ext4" 2>/dev/null | awk -v time="$SOURCE_DATE_EPOCH" '
    /^Inode count:/ { count = $3 }
    /^  Free inodes: [0-9]/ {
      n = split(substr($0, 16), spans, ", ")
      for (i = 1; i <= n; i++) {
        m = split(spans[i], ends, "-")
        for (j = ends[1] + 0; j <= ends[m] + 0; j++) free[j] = 1
      }
    }
    END {
      split("atime ctime crtime", fields, " ")
      # 2 is the root; the others below 11 belong to the file system and have its time already.
      for (i = 2; i <= count; i = i == 2 ? 11 : i + 1)
        if (!(i in free)) for (f = 1; f <= 3; f++) printf "set_inode_field <%d> %s @%d\n", i, fields[f], time
    }' > times
  debugfs -w -f times "$IMAGE_STEM.ext4" > times.log 2>&1
  ! grep -v '^debugfs' times.log
  e2fsck -fn "$IMAGE_STEM.ext4"
}

pack_iso() {
  pack_squashfs
  mkdir -p iso/live iso/isolinux
  set -- root/boot/vmlinuz-*
  [ $# = 1 ] && [ -f "$1" ] && [ -f root/boot/initrd.img-* ] && [ -d root/lib/live/boot ] || {
    echo "a live system needs exactly one kernel (for instance linux-image-cloud-amd64) and the package live-boot"
    exit 1
  }
  cp "$1" iso/live/vmlinuz
  cp root/boot/initrd.img-* iso/live/initrd.img
  ln "$IMAGE_STEM.squashfs" iso/live/filesystem.squashfs
  cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 iso/isolinux/
  cat > iso/isolinux/isolinux.cfg <<LOADER
serial 0 115200
default live
prompt 0
label live
  kernel /live/vmlinuz
  append initrd=/live/initrd.img boot=live hostname=$IMAGE_HOSTNAME console=tty0 console=ttyS0,115200
LOADER
  find iso -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  xorriso -as mkisofs -quiet -r -J -volid "$label" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
    -boot-load-size 4 -boot-info-table -isohybrid-mbr /usr/lib/ISOLINUX/isohdpfx.bin -o "$IMAGE_STEM.iso" iso
  rm -rf iso
}

for format in $IMAGE_FORMATS; do
  case $format in
    ext4) pack_ext4 ;;
    iso) pack_iso ;;
    squashfs) pack_squashfs ;;
    tar) ;;
  esac
done
sha256sum "$IMAGE_STEM".*
# What is mounted below it stays: the sandbox ends next.
rm -rf --one-file-system root 2>/dev/null || true
