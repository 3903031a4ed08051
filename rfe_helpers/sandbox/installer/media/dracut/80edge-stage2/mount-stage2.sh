#!/bin/sh
# The medium is mounted at /run/install/repo, as by Anaconda, and stays there for the installer.
# shellcheck disable=SC2154  # set by find-stage2.sh, in the same shell

mount_stage2() {
    mkdir -p /run/install/repo /run/install/stage2 /run/install/overlay
    mount -o ro "$stage2_device" /run/install/repo || return 1
    mount -o ro,loop -t squashfs "/run/install/repo/$stage2_image" /run/install/stage2 || return 1
    mount -t tmpfs -o mode=0755 tmpfs /run/install/overlay || return 1
    mkdir -p /run/install/overlay/upper /run/install/overlay/work
    mount -t overlay -o "lowerdir=/run/install/stage2,upperdir=/run/install/overlay/upper,workdir=/run/install/overlay/work" \
        overlay "$NEWROOT"
}

mount_stage2 || stage2_failed "$stage2_device has no usable $stage2_image"
