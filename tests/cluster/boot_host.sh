#!/bin/bash
# Process 1 of a host of the test. It runs in namespaces of its own (network, mounts, processes,
# host name), which hosts.py makes, and gives the host private folders and an sshd.
#
#   boot_host.sh NAME ROLE FOLDER PROJECT KEPT...
#
# ROLE is machine, laptop or intruder. FOLDER holds etc/ (sshd's files, /etc/hosts), laptop/ (the
# laptop's home) and shared/ (the laboratory's file server). PROJECT is the checkout, which the
# laptop alone sees. KEPT are folders of this machine that every host may read.
set -euo pipefail
name=$1 role=$2 folder=$3 project=$4
shift 4

hold() { mkdir -p "/mnt/held$1" && mount --rbind "$1" "/mnt/held$1"; }
cover() { mkdir -p "$1" && mount -t tmpfs -o mode=755 tmpfs "$1"; }
bring_back() { mkdir -p "${2:-$1}" && mount --rbind "/mnt/held$1" "${2:-$1}"; }
read_only() { bring_back "$1" && mount -o remount,bind,ro "$1"; }

mount --make-rprivate /
hostname "$name"

# What is needed of the folders that are covered next is held in /mnt meanwhile.
cover /mnt
for path in "$folder" "$project" "$@"; do hold "$path"; done
mount -o remount,bind,ro /
for path in /tmp /root /home /run /srv /dev/shm "$project"; do cover "$path"; done
chmod 1777 /tmp /dev/shm

case $role in
  laptop)
    bring_back "$folder/laptop" /root
    read_only "$project"
    ;;
  machine)
    cp /etc/skel/.bashrc /etc/skel/.profile /root
    bring_back "$folder/shared" /srv/birdsong
    ;;
esac
for path in "$folder/etc" "$@"; do read_only "$path"; done
mount --bind "$folder/etc/hosts" /etc/hosts
umount -R -l /mnt

if [ "$role" = machine ]; then
  mkdir -p /run/sshd
  /usr/sbin/sshd -D -e -f "$folder/etc/sshd_config" 2>/run/sshd.log &
fi
touch /run/booted
# Process 1 inherits every orphan; bash takes in those that end while it waits.
while :; do
  sleep 3600 &
  wait $! || true
done
