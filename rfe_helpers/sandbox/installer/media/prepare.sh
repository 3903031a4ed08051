#!/bin/sh
# Runs in the chroot of the installer system, in /rfe: turns it from an edge system into an
# installer, and packs the files that boot it into boot.tar, in the layout of the ISO.
set -eu
cd /rfe

# The system starts little besides the installer, so that it boots quickly.
ln -sf edge-install.target /usr/lib/systemd/system/default.target
ln -sf /usr/lib/systemd/system/edge-install.target /etc/systemd/system/default.target
for unit in timers.target ldconfig.service systemd-hwdb-update.service \
    systemd-journal-catalog-update.service systemd-update-done.service systemd-sysusers.service \
    systemd-firstboot.service systemd-random-seed.service systemd-timesyncd.service \
    systemd-networkd-wait-online.service ostree-remount.service ostree-finalize-staged.path \
    getty-static.service systemd-journal-flush.service greenboot-count.service \
    greenboot-healthcheck.service greenboot-task-runner.service; do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done
: > /etc/machine-id
: > /etc/fstab
echo installer > /etc/hostname
ln -sf ../run/systemd/resolve/resolv.conf /etc/resolv.conf
python3 -m compileall -q /usr/lib/edge-installer

mkdir -p boot/images/pxeboot boot/EFI/BOOT boot/boot/grub2
kernel=$(basename /boot/vmlinuz-*)
cp "/boot/$kernel" boot/images/pxeboot/vmlinuz
echo "RFE-STAGE: initramfs of the installer"
# The edge system's own settings (ostree, systemd) do not belong in this initramfs.
rm -f /usr/lib/dracut/dracut.conf.d/*.conf /etc/dracut.conf.d/*.conf
dracut --quiet --force --no-hostonly \
    --modules "base udev-rules edge-stage2" --no-early-microcode --compress "zstd -9 -T0" \
    --kver "${kernel#vmlinuz-}" boot/images/pxeboot/initrd.img
chmod 644 boot/images/pxeboot/initrd.img

echo "RFE-STAGE: boot loaders of the ISO"
modules="part_gpt part_msdos iso9660 fat search search_label configfile normal linux serial
    terminal echo ls test reboot halt minicmd sleep all_video"
grub-mkimage -O i386-pc-eltorito -o boot/images/eltorito.img -p /boot/grub2 \
    -c grub-early-bios.cfg biosdisk $modules
grub-mkimage -O x86_64-efi -o boot/EFI/BOOT/BOOTX64.EFI -p /EFI/BOOT \
    -c grub-early-efi.cfg efi_gop $modules
cp grub.cfg boot/boot/grub2/grub.cfg
cp grub.cfg boot/EFI/BOOT/grub.cfg
cp /usr/lib/grub/i386-pc/boot_hybrid.img boot_hybrid.img
mkfs.vfat -C boot/images/efiboot.img -n EFIBOOT 4096
mmd -i boot/images/efiboot.img ::/EFI ::/EFI/BOOT
mcopy -i boot/images/efiboot.img boot/EFI/BOOT/BOOTX64.EFI ::/EFI/BOOT/
tar -cf boot.tar boot boot_hybrid.img

rm -rf /boot/* /usr/lib/modules/*/initramfs.img /var/cache/apt /var/lib/apt/lists /var/cache/debconf/*-old
