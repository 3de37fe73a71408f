#!/bin/sh
# The guest's first process. Stage 1 runs in the initramfs and puts the root
# together; stage 2 runs in that root and runs the command. Its only tools are
# busybox's. /rig holds its settings (see initramfs.ts).
#
# The host hears of it on the port `control`, a line each:
#   stage NAME      how far the boot has come
#   fail MESSAGE    the command could not be started
#   exit CODE       the command has ended, and its output is all written

here=$1
. "$here/settings"
b=$here/busybox

port() {
  for entry in /sys/class/virtio-ports/*; do
    read -r name <"$entry/name"
    if [ "$name" = "$1" ]; then
      echo "/dev/${entry##*/}"
      return
    fi
  done
}

fail() {
  echo "rig: $1"
  echo "fail $1" >&3
  finish
}

# Soft-RoCE between two network namespaces, as between two hosts: rxe0 over p2p0
# here, rxe1 over p2p1 in the namespace `peer`. RDMA devices are shared, so that
# either is seen from both (`rdma system`: netns shared).
soft_roce() {
  # A link that is up when its device is added makes an active port at once.
  $IP -batch - <<END
link add p2p0 address 52:54:00:12:34:60 type veth peer name p2p1 address 52:54:00:12:34:61
netns add peer
link set p2p1 netns peer
address add 10.0.0.1/24 dev p2p0
link set p2p0 up
END
  $IP -netns peer -batch - <<END
link set lo up
address add 10.0.0.2/24 dev p2p1
link set p2p1 up
END
  $RDMA link add rxe0 type rxe netdev p2p0 &&
    $IP netns exec peer $RDMA link add rxe1 type rxe netdev p2p1
}

# The drivers of graphics devices, which export dma-bufs; a virtio one's is that of the device
# below its PCI device. Other devices wait until somebody asks for their drivers.
graphics() {
  for device in /sys/bus/pci/devices/*; do
    read -r class <"$device/class"
    case $class in 0x03*) ;; *) continue ;; esac
    for alias in "$device/modalias" "$device"/virtio*/modalias; do
      # Not all of QEMU's have one.
      [ -e "$alias" ] && $MODPROBE -q "$($b cat "$alias")"
    done
  done
}

finish() {
  $b sync
  $b poweroff -f
}

stage1() {
  $b mount -t devtmpfs dev /dev
  $b mount -t proc proc /proc
  $b mount -t sysfs sys /sys
  # Those by which the host hears of us, where the kernel has them not built in.
  for module in "$here"/early/*; do
    [ -e "$module" ] && $b insmod "$module"
  done
  exec 3>"$(port control)"
  echo 'stage kernel' >&3
  # From here on the console has all that the kernel says: what it complains of at a warning's
  # level, it explains at others.
  echo 8 >/proc/sys/kernel/printk

  # Before vfio-pci is there: it takes them as it comes, and nobody else can.
  for address in $VFIO; do
    echo vfio-pci >"/sys/bus/pci/devices/$address/driver_override"
  done
  for module in "$here"/modules/*; do
    [ -e "$module" ] || continue
    $b insmod "$module" || fail "insmod ${module##*/} failed"
  done

  # Nothing changes the host's files below us in the meantime, so cache them.
  options=trans=virtio,version=9p2000.L,msize=512000
  $b mkdir -p /host /cover /root
  $b mount -t 9p -o "$options,cache=loose,ro" root /host || fail 'no root folder'
  $b mount -t tmpfs -o mode=0755,size=75% tmpfs /cover
  $b mkdir /cover/upper /cover/work
  $b mount -t overlay -o lowerdir=/host,upperdir=/cover/upper,workdir=/cover/work overlay /root ||
    fail 'no overlay over the root folder'

  for folder in dev proc sys; do
    $b mkdir -p "/root/$folder"
    $b mount --move "/$folder" "/root/$folder"
  done
  $b mkdir -p /root/run /root/tmp "/root/lib/modules/$RELEASE"
  $b mount -t tmpfs -o mode=0755 tmpfs /root/run
  $b mount -t 9p -o "$options,cache=loose,ro" modules "/root/lib/modules/$RELEASE" ||
    fail 'no kernel modules'
  $b mkdir -p "/root$FOLDER"
  # Four times as fast as cache=mmap. A file is written back when it is closed.
  $b mount -t 9p -o "$options,cache=loose" folder "/root$FOLDER" ||
    fail "no current folder $FOLDER"

  $b mkdir /root/run/p2pdma
  $b cp -R "$here"/* /root/run/p2pdma/
  # The root is moved by switch_root, which insists on running as process 1.
  exec $b switch_root /root /run/p2pdma/busybox sh /run/p2pdma/init /run/p2pdma stage2
}

stage2() {
  $b mkdir -p /dev/pts /dev/shm
  $b mount -t devpts -o mode=0620,ptmxmode=0666 devpts /dev/pts
  $b mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  $b mount -t debugfs debugfs /sys/kernel/debug
  $b ln -s /proc/self/fd /dev/fd
  $b ln -s /proc/self/fd/0 /dev/stdin
  $b ln -s /proc/self/fd/1 /dev/stdout
  $b ln -s /proc/self/fd/2 /dev/stderr
  $b ip link set lo up
  $b hostname rig
  # Booted with maxcpus=1, see qemu.ts.
  for online in /sys/devices/system/cpu/cpu[1-9]*/online; do
    [ -e "$online" ] && echo 1 >"$online"
  done
  graphics
  [ -d /sys/module/rdma_rxe ] && { soft_roce || fail 'no soft-RoCE'; }
  ulimit -n 1048576
  ulimit -l unlimited

  # The command gets pipes: on a terminal or a port programs behave differently.
  $b mkfifo "$here/stdout" "$here/stderr"
  $b cat <"$here/stdout" >"$(port stdout)" 3>&- &
  cats="$!"
  $b cat <"$here/stderr" >"$(port stderr)" 3>&- &
  cats="$cats $!"

  echo 'stage running' >&3
  (
    exec 3>&-
    . "$here/environment"
    cd "$FOLDER" || exit 125
    # Not by busybox, which would prefer its own programs to the root's.
    exec /bin/sh "$here/command"
  ) </dev/null >"$here/stdout" 2>"$here/stderr"
  code=$?

  # What the command left running would keep its output open for ever.
  for process in /proc/[0-9]*; do
    process=${process#/proc/}
    case " 1 $cats " in *" $process "*) continue ;; esac
    # A kernel thread has no executable.
    [ -e "/proc/$process/exe" ] && kill -KILL "$process" 2>/dev/null
  done
  wait $cats
  $b sync
  $b umount "$FOLDER" || $b mount -o remount,ro "$FOLDER"
  echo "exit $code" >&3
  finish
}

${2:-stage1}
