#!/usr/bin/env bash
# The show that try.sh runs in namespaces of its own: this shell's network is the Pi 3 (the host),
# four named namespaces are Zeros, one is the Internet. $1 is the directory of otgd and otgctl.
set -euo pipefail

# shellcheck source=packaging/lib/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
PATH=$1:/usr/sbin:/usr/bin:/sbin:/bin
trap 'exit 130' INT TERM

far_side=203.0.113.9
work=/run/show # on a tmpfs that only this show sees
log=$work/otgd.log

# Print a command and run it.
run() {
    printf '%s$ %s%s\n' "$faint" "$*" "$plain"
    "$@"
}

# Hold a fact: $1 says it, the rest is the command that succeeds if it is so.
expect() {
    local fact=$1
    shift
    if "$@" >/dev/null 2>&1; then
        printf '  %sok%s  %s\n' "$green" "$plain" "$fact"
        return
    fi
    printf '\notgd said:\n' >&2
    tail -n 20 -- "$log" >&2 || true
    fail "does not hold: $fact ($*)"
}

# Hold a fact within ten seconds.
expect_soon() {
    local fact=$1 end=$((SECONDS + 10))
    shift
    until "$@" >/dev/null 2>&1 || ((SECONDS > end)); do sleep 0.02; done
    expect "$fact" "$@"
}

absent() { ! "$@"; }

# Plug Zero $1 in; the kernel calls its link $2. The Zero's end is set up as its SD card would.
plug() {
    local n=$1 name=$2
    ip -netns "zero$n" -batch - <<END
link add name usb0 type veth peer name $name address 00:22:82:ff:ff:0$n netns $$
address add 10.0.1$n.2/24 dev usb0
link set usb0 up
route add default via 10.0.1$n.1
END
    printf '  plugged Zero %s: its link is called %s, its MAC is 00:22:82:ff:ff:0%s\n' "$n" "$name" "$n"
}

zero_pings() { ip netns exec "zero$1" ping -n -q -c 2 -i 0.1 -W 1 "$2"; }
# No "grep -q" behind a pipe: it leaves early, and pipefail takes the writer's SIGPIPE for a failure.
has_address() { [[ $(ip -4 -oneline address show dev "ethusb$1") == *" 10.0.1$1.1/24 "* ]]; }
# otgd takes the packet filter that the host uses, here nftables; with the other one it is a chain.
rules() {
    nft --terse list chain inet otgd nat 2>/dev/null || true
    nft list set inet otgd masqueraded 2>/dev/null || true
    iptables-legacy-save -t nat 2>/dev/null | grep -F MASQUERADE || true
}
masqueraded() { rules | grep -F "10.0.1$1.0/24"; }
told_absent() { [[ $(otgctl status) =~ ethusb$1\ +absent ]]; }

show_masquerades() {
    printf '%sThe masquerade rules in force:%s\n' "$faint" "$plain"
    rules
}

mount -t tmpfs -o mode=755 tmpfs /run
mount -t sysfs sysfs /sys # shows the links of this network
mkdir -p -- "$work"
: >"$log"

heading "A host with an uplink and four USB ports, nothing plugged in"
for each in internet zero1 zero2 zero3 zero4; do
    ip netns add "$each" || fail "cannot make network namespaces here"
done
ip link set lo up
ip -netns internet -batch - <<END || fail "this kernel cannot make veth and macvlan links"
link add name wan type veth peer name lan
address add 198.51.100.1/24 dev wan
address add $far_side/32 dev lo
link set wan up
link set lan up
link add name eth0 link lan netns $$ type macvlan mode private
END
ip -batch - <<END
address add 198.51.100.2/24 dev eth0
link set eth0 up
route add default via 198.51.100.1
END
cat >"$work/otgd.toml" <<'END'
[hotplug]
drivers = ["veth"]        # here veth links play the USB cables

[fleet]
count = 4
interface = "ethusb{n}"
mac = "00:22:82:ff:ff:01" # of gadget 1; each next one is one higher
subnet = "10.0.11.0/24"   # of gadget 1; each next one is the next block
END
run cat "$work/otgd.toml"
expect "the host reaches the Internet ($far_side)" ping -n -q -c 1 -W 2 "$far_side"
expect "the Internet has no route to the Zeros, it answers only masqueraded packets" \
    absent ip -netns internet route get 10.0.11.2

heading "Start otgd"
printf '%s$ otgd --config %s &%s\n' "$faint" "$work/otgd.toml" "$plain"
otgd --config "$work/otgd.toml" >>"$log" 2>&1 &
daemon=$!
expect_soon "otgd is up and has written its state" test -s /run/otgd/state.json
run otgctl status

heading "Plug four Zeros in, under whatever names the kernel gives their links"
plug 1 usb0
plug 2 eth1
plug 3 enx002282ffff03
plug 4 usb1
for n in 1 2 3 4; do
    expect_soon "ethusb$n has its name and its address 10.0.1$n.1/24" has_address "$n"
    expect "what leaves 10.0.1$n.0/24 by the uplink is masqueraded" masqueraded "$n"
done
for n in 1 2 3 4; do
    expect_soon "Zero $n reaches the Internet" zero_pings "$n" "$far_side"
done
run ip netns exec zero1 ping -n -c 3 -i 0.2 "$far_side"
run otgctl status
run ip -4 -brief address
show_masquerades
expect "Zero 1 reaches Zero 3" zero_pings 1 10.0.13.2
expect "Zero 4 reaches Zero 2" zero_pings 4 10.0.12.2

heading "Pull Zero 2 out"
run ip -netns zero2 link delete usb0
expect_soon "its masquerade rule is gone" absent masqueraded 2
expect_soon "otgd says that it is absent" told_absent 2
run otgctl status
show_masquerades
expect "its link and its address are gone" absent has_address 2
for n in 1 3 4; do
    expect "Zero $n still reaches the Internet" zero_pings "$n" "$far_side"
done

heading "Stop otgd; the network stays, so a restart disturbs nobody"
kill -TERM "$daemon"
status=0
wait "$daemon" || status=$?
expect "otgd ended in good order (exit status $status)" test "$status" -eq 0
expect "Zero 1 still reaches the Internet" zero_pings 1 "$far_side"

heading "${green}All of it held.${plain}${bold} What otgd told about it:"
cat -- "$log"
