# fault-lib.sh: what the tests of failing devices share: a disk below which things go wrong when told to, and loads.
#
#   faulty_begin NAME SIZE [nbdkit WORDS ...]   a device of that size, as the file $dir/NAME/nbd: nbdkit's filters below
#                                               a FUSE file. Sets `device` to its path
#   break_ NAME WHAT / mend NAME WHAT           WHAT (read, write, trim, zero) fails with EIO from here on / no more
#   failing_load_begin URI ...                  lib.sh's load_begin, of a load that ends at an I/O error
#
# What is below a device is kept in $dir/NAME.img, so that it survives nbdkit.
# shellcheck shell=bash disable=SC2034 # its variables are for those who read it
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/lib.sh"

require_faults() {
	require nbdkit nbdfuse jq "$@"
	[ -w /dev/fuse ] || skip "/dev/fuse may not be used"
	require_daemon
}

# The words that let one kind of request fail while a file is there.
fault_words() { # NAME KIND OF nbdkit  ERRNO
	echo "error-$2=$3 error-$2-rate=100% error-$2-file=$dir/$1.$2"
}

# One server, and the file that the daemon sees.
faulty_up() { # NAME PLUGIN AND WORDS ...
	local name=$1
	shift
	nbdkit -f -U "$dir/$name.sock" "$@" 7>&- 8<&- &
	others+=($!)
	server_of[$name]=$!
	until_true 10 test -S "$dir/$name.sock"
	mkdir -p "$dir/$name"
	nbdfuse "$dir/$name" "nbd+unix:///?socket=$dir/$name.sock" 7>&- 8<&- &
	others+=($!)
	mounts+=("$dir/$name")
	until_true 10 test -e "$dir/$name/nbd"
	device=$dir/$name/nbd
}

faulty_down() { # NAME: as when a device is pulled out
	kill -KILL "${server_of[$1]}"
	wait "${server_of[$1]}" 2>/dev/null || true
	umount -l "$dir/$1"
	rm -f "$dir/$1.sock"
}

declare -A server_of
faulty_begin() { # NAME SIZE [WORDS ...]; ERRNO is what a failing request is answered with
	local name=$1 size=$2 errno=${ERRNO:-EIO} kind words=()
	shift 2
	[ -e "$dir/$name.img" ] || truncate -s "$size" "$dir/$name.img"
	for kind in pread pwrite trim zero; do
		# shellcheck disable=SC2207 # words without spaces
		words+=($(fault_words "$name" $kind "$errno"))
	done
	faulty_up "$name" --filter=error file "$dir/$name.img" "${words[@]}" "$@"
}

break_() { touch "$dir/$1.$2"; }
mend() { rm -f "$dir/$1.$2"; }

# ---- a load ----

# It knows what every sector may hold, and ends at an I/O error.
failing_load_begin() { load_begin tests/e2e/loadgen --may-fail --window-mib 4 "$@"; }

# ---- what must hold of a disk that has failed, and of one that is back ----

disk_state() { json ".disks[] | select(.name == \"$1\") | .state" disk list; }

# The event of the failure, `status` and `disk list` name the disk; the event says what to do.
disk_has_failed() { # NAME PATTERN: of the event
	local event
	until_true 20 is_state "$1" failed
	event=$(q --json events | jq -r '[.events[] | select(.code == "disk-failed")][-1] | .object + ": " + .message')
	echo "   $event"
	holds grep -qE "$2" <<<"$event"
	expect 1 "$1" q status
}
is_state() { [ "$(disk_state "$1")" = "$2" ]; }

# Nothing is acknowledged that is on the failed disk alone.
volume_answers_eio() { # NAME
	nbdsh -u "$(uri "$1")" -c '
def refused(what, call):
    try:
        call()
    except nbd.Error as e:
        assert e.errno == "EIO", "%s was answered with %s" % (what, e.errno)
        return
    raise SystemExit("%s was acknowledged" % what)
refused("a write", lambda: h.pwrite(b"x" * 4096, 0))
refused("a write with FUA", lambda: h.pwrite(b"x" * 4096, 8192, nbd.CMD_FLAG_FUA))
refused("a flush", h.flush)
refused("a trim", lambda: h.trim(1 << 20, 0))
refused("a zero", lambda: h.zero(1 << 20, 0))
refused("a read", lambda: h.pread(4096, 0))'
	n_checks=$((n_checks + 6))
}

volume_anew() { # NAME: attached again, as the how-to says
	expect 0 '' q volume detach "$1"
	expect 0 '' q volume attach "$1" --nbd
}
