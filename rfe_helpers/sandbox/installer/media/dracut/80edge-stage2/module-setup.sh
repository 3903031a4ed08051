#!/bin/bash
# Boots the installer system from images/install.img on the medium that inst.stage2= names.

check() {
    return 255
}

depends() {
    echo base udev-rules
}

installkernel() {
    hostonly='' instmods \
        loop squashfs overlay isofs nls_utf8 vfat nls_cp437 nls_ascii nls_iso8859-1 \
        sr_mod sd_mod ahci ata_piix nvme virtio_blk virtio_scsi virtio_pci virtio_rng \
        xhci_pci ehci_pci uhci_hcd usb_storage uas
}

install() {
    inst_multiple mount umount mkdir poweroff sleep
    inst_hook cmdline 30 "$moddir/find-stage2.sh"
    inst_hook initqueue/timeout 90 "$moddir/no-stage2.sh"
    inst_hook mount 50 "$moddir/mount-stage2.sh"
    mkdir -p "$initdir/etc/cmdline.d"
    echo "rd.retry=60" > "$initdir/etc/cmdline.d/50-edge-stage2.conf"
}
