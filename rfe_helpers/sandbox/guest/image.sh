#!/bin/sh
# Runs inside the tree of the guest image: from the base of edge systems to an ordinary Debian that
# cloud-init sets up. $1, $2 and $3 are the UUIDs of its root, /boot and EFI system partition, $4 more
# arguments of the kernel.
set -eu
release=$(ls /usr/lib/modules)
mv "/usr/lib/modules/$release/initramfs.img" /boot/initramfs.img
ln -sf "vmlinuz-$release" /boot/vmlinuz

# What makes the base an edge system.
rm -rf /usr/bin/greenboot /usr/bin/rpm-ostree /usr/bin/bootc /usr/lib/edge /etc/rpm-ostreed.conf \
    /usr/lib/tmpfiles.d/00-edge.conf /usr/lib/systemd/system/rpm-ostreed-automatic.* \
    /usr/lib/systemd/system/bootc-fetch-apply-updates.* \
    /usr/lib/systemd/system/systemd-sysusers.service.d \
    /usr/lib/systemd/system-preset/10-edge.preset

cat >/etc/fstab <<END
UUID=$1 / ext4 defaults 0 1
UUID=$2 /boot ext4 defaults 0 2
UUID=$3 /boot/efi vfat umask=0077 0 2
END
# No menu: there is one kernel and nobody to choose.
mkdir -p /boot/efi /boot/grub
cat >/boot/grub/grub.cfg <<END
linux /vmlinuz root=UUID=$1 ro console=tty0 console=ttyS0,115200 $4
initrd /initramfs.img
boot
END
echo guest >/etc/hostname
printf '%s\n' '\S' '' '\n on \l, address \4' >/etc/issue
mkdir -p /etc/cloud/cloud.cfg.d
# Its data come on a CD. Looking for the services of clouds would take minutes.
echo 'datasource_list: [NoCloud, None]' >/etc/cloud/cloud.cfg.d/90-datasource.cfg
systemctl enable --quiet systemd-networkd.service systemd-resolved.service ssh.service
# As in Red Hat's image, whoever wants the web console turns it on.
systemctl disable --quiet cockpit.socket

: >/etc/machine-id
rm -f /etc/ssh/ssh_host_* /etc/resolv.conf
ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf

# mmdebstrap undoes these only after the image is made.
rm -rf /var/lib/apt/lists /var/cache/apt /usr/sbin/policy-rc.d
mv /sbin/start-stop-daemon.REAL /sbin/start-stop-daemon
