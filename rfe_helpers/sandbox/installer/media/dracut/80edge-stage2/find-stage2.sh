#!/bin/sh
# inst.stage2=hd:DEVICE[:/path] or cdrom[:DEVICE], as in Anaconda; DEVICE is LABEL=, UUID= or a name.

stage2_failed() {
    for console in $(cat /sys/class/tty/console/active); do
        printf '\r\nRFE-INSTALL-FAILED: %s\r\n' "$1" > "/dev/$console"
    done
    sleep 60
    poweroff -f
}

stage2=$(getarg inst.stage2=)
image=images/install.img
case "$stage2" in
    hd:*:*) device=${stage2#hd:} && image=${device#*:} && device=${device%%:*} ;;
    hd:*) device=${stage2#hd:} ;;
    cdrom) device=sr0 ;;
    cdrom:*) device=${stage2#cdrom:} ;;
    *) stage2_failed "inst.stage2=$stage2: give the kernel inst.stage2=hd:LABEL=…" ;;
esac
case "$device" in
    LABEL=*) device=/dev/disk/by-label/${device#LABEL=} ;;
    UUID=*) device=/dev/disk/by-uuid/${device#UUID=} ;;
    /dev/*) ;;
    *) device=/dev/$device ;;
esac
stage2_device=$device
stage2_image=${image#/}
wait_for_dev "$stage2_device"
root=edge-stage2
rootok=1
