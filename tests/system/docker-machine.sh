#!/bin/bash
# A Debian root as a machine of its own in the caller's network: docker-machine.sh CGROUP HOSTNAME ROOT RUN
#
# Mounts, hostname, processes and cgroups are its own; /run is the caller's if RUN is "shared".
# Runs nothing but a PID 1 that reaps; the caller enters it. Goes through itself four times: into
# namespaces of its own, cgroups of its own, a cgroup namespace with these as roots, the root.
set -e
cgroup=$1 hostname=$2 root=$3 run=$4 stage=${5-outside}
controllers='cpu cpuacct cpuset memory devices freezer blkio pids'

case $stage in
outside)
    # Stays outside of the cgroups: one with a process in it cannot hand controllers on (v2).
    exec unshare --mount --uts --ipc --pid --fork --kill-child --propagation private \
        "$0" "$cgroup" "$hostname" "$root" "$run" cgroups
    ;;
cgroups)
    mount -t tmpfs tmpfs /mnt
    if grep -q ':memory:' /proc/self/cgroup; then
        for controller in $controllers; do
            place=/mnt/$controller
            mkdir "$place"
            mount -t cgroup -o "$controller" cgroup "$place"
            mkdir "$place/$cgroup"
            for file in cpuset.cpus cpuset.mems; do
                [ ! -e "$place/$file" ] || cat "$place/$file" > "$place/$cgroup/$file"
            done
            echo $$ > "$place/$cgroup/cgroup.procs"
        done
    else
        mkdir /mnt/unified
        mount -t cgroup2 cgroup2 /mnt/unified
        mkdir "/mnt/unified/$cgroup"
        echo $$ > "/mnt/unified/$cgroup/cgroup.procs"
    fi
    exec unshare --cgroup "$0" "$cgroup" "$hostname" "$root" "$run" root
    ;;
root)
    hostname "$hostname"
    umount -R /mnt
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/up /mnt/work /mnt/root
    mount -t overlay overlay -o "lowerdir=$root,upperdir=/mnt/up,workdir=/mnt/work" /mnt/root
    cp "$0" /mnt/root/machine
    cd /mnt/root
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount --rbind /dev dev
    if [ "$run" = shared ]; then mount --rbind /run run; else mount -t tmpfs tmpfs run; fi
    mount -t tmpfs tmpfs tmp
    if grep -q ':memory:' /proc/self/cgroup; then
        mount -t tmpfs cgroup sys/fs/cgroup
        for controller in $controllers; do
            mkdir "sys/fs/cgroup/$controller"
            mount -t cgroup -o "$controller" cgroup "sys/fs/cgroup/$controller"
        done
    else
        mount -t cgroup2 cgroup2 sys/fs/cgroup
        mkdir sys/fs/cgroup/init # no process may stay where controllers are handed on
        echo 1 > sys/fs/cgroup/init/cgroup.procs
        sed 's/\([a-z_]*\)/+\1/g' sys/fs/cgroup/cgroup.controllers > sys/fs/cgroup/cgroup.subtree_control
    fi
    mkdir -p var/lib/docker old
    mount -t tmpfs tmpfs var/lib/docker
    echo "$hostname" > etc/hostname
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$hostname" > etc/hosts
    pivot_root . old
    exec chroot . bash /machine "$cgroup" "$hostname" "$root" "$run" init
    ;;
init)
    umount -l /old
    mkdir -p /run/sshd
    touch /run/machine-ready
    trap : CHLD
    while :; do
        sleep 3600 &
        wait -n
    done
    ;;
esac
