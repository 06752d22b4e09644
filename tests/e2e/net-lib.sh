# net-lib.sh: hosts in network namespaces of their own, on one switch, and what cuts them off; read after lib.sh.
#
#   net_begin                     a switch; skips the test where namespaces cannot be made
#   host_add NAME ADDRESS         a host on it; its namespace is $(space_of NAME)
#   link_down, link_up NAME       its cable
#   deaf NAME ADDRESS ...         it hears nothing of these any more, and they hear it
#   mute NAME ADDRESS ...         they hear nothing of it, and it hears them
#   heal NAME                     neither deaf nor mute
#
# Addresses are nobody else's: nothing leaves the switch. All of it goes with the test.
# shellcheck shell=bash
require ip nft
net_id=q$$

space_of() { echo "$net_id-$1"; }
inside() { ip netns exec "$(space_of "$1")" "${@:2}"; } # NAME COMMAND ...

net_begin() {
	local hub
	hub=$(space_of hub)
	[ "$(id -u)" = 0 ] || skip "network namespaces need root"
	ip netns add "$hub" 2>/dev/null || skip "network namespaces cannot be made here"
	spaces+=("$hub")
	ip -n "$hub" link add switch type bridge 2>/dev/null || skip "the kernel has no bridges"
	ip -n "$hub" link set switch up
	ip netns exec "$hub" nft add table inet try 2>/dev/null || skip "the kernel has no nftables"
}

host_add() { # NAME ADDRESS
	local space hub
	space=$(space_of "$1") hub=$(space_of hub)
	ip netns add "$space"
	spaces+=("$space")
	ip link add eth0 netns "$space" type veth peer name "to-$1" netns "$hub"
	ip -n "$space" addr add "$2/24" dev eth0
	ip -n "$space" link set lo up
	ip -n "$space" link set eth0 up
	ip -n "$hub" link set "to-$1" master switch up
	inside "$1" nft -f - <<-END
		table inet cut {
			chain heard { type filter hook input priority 0; policy accept; }
			chain said { type filter hook output priority 0; policy accept; }
		}
	END
}

link_down() { ip -n "$(space_of hub)" link set "to-$1" down; }
link_up() { ip -n "$(space_of hub)" link set "to-$1" up; }

deaf() { # NAME ADDRESS ...
	local from
	for from in "${@:2}"; do
		inside "$1" nft add rule inet cut heard ip saddr "$from" drop
	done
}

mute() { # NAME ADDRESS ...
	local to
	for to in "${@:2}"; do
		inside "$1" nft add rule inet cut said ip daddr "$to" drop
	done
}

heal() { # NAME
	inside "$1" nft flush chain inet cut heard
	inside "$1" nft flush chain inet cut said
}
