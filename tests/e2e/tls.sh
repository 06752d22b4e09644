#!/bin/bash
# limit: 90
# tls.sh: NBD over TLS, with certificates and with a shared key, offered or required.
. "$(dirname "$0")/lib.sh"
require certtool psktool nbdinfo nbdcopy cmp
require_daemon

say "certificates"
mkdir "$dir/pki"
(
	cd "$dir/pki"
	certtool --generate-privkey --key-type=ecdsa --outfile ca-key.pem
	printf 'cn = "test"\nca\ncert_signing_key\nexpiration_days = 2\n' >ca.info
	certtool --generate-self-signed --load-privkey ca-key.pem --template ca.info --outfile ca-cert.pem
	for who in server client stranger; do
		certtool --generate-privkey --key-type=ecdsa --outfile $who-key.pem
		printf 'cn = "localhost"\ndns_name = "localhost"\nip_address = "127.0.0.1"\ntls_www_%s\nsigning_key\nexpiration_days = 2\n' \
			"$([ $who = server ] && echo server || echo client)" >$who.info
	done
	certtool --generate-certificate --load-privkey server-key.pem --load-ca-certificate ca-cert.pem --load-ca-privkey ca-key.pem \
		--template server.info --outfile server-cert.pem
	certtool --generate-certificate --load-privkey client-key.pem --load-ca-certificate ca-cert.pem --load-ca-privkey ca-key.pem \
		--template client.info --outfile client-cert.pem
	certtool --generate-self-signed --load-privkey stranger-key.pem --template stranger.info --outfile stranger-cert.pem
) >"$dir/pki.log" 2>&1
psktool -u alice -p "$dir/keys.psk" >/dev/null 2>&1
psktool -u mallory -p "$dir/other.psk" >/dev/null 2>&1
mkdir "$dir/client"
cp "$dir"/pki/{ca-cert,client-cert,client-key}.pem "$dir/client/"

port=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
head -c 20M /dev/urandom >"$dir/image"

# NAME OF THE MODE, NBD SETTINGS
with_tls() {
	[ -z "$daemon_pid" ] || daemon_stop
	NBD_CONF="listen = \"127.0.0.1:$port\"; $1" daemon_configure
	daemon_start
}
tcp() { echo "nbd${1:-}://${3:-}localhost:$port/$2"; }

say "off: no TLS is offered"
with_tls 'tls = "off";'
disk_make d1 512M
volume_make v1 64M
expect 0 '' nbdinfo "$(tcp '' v1)"
expect 1 '' nbdinfo "$(tcp s v1)?tls-certificates=$dir/client"

say "on: both ways work"
with_tls "tls = \"on\"; cert_dir = \"$dir/pki\";"
expect 0 '' nbdinfo "$(tcp '' v1)"
nbdcopy --flush "$dir/image" "$(tcp s v1)?tls-certificates=$dir/client"
nbdcopy "$(tcp s v1)?tls-certificates=$dir/client" "$dir/back"
holds cmp -n $((20 << 20)) "$dir/image" "$dir/back"
expect 0 'protocol: .*TLS' nbdinfo "$(tcp s v1)?tls-certificates=$dir/client"

say "require: nothing without TLS, and no stranger"
with_tls "tls = \"require\"; cert_dir = \"$dir/pki\";"
expect 1 '' nbdinfo "$(tcp '' v1)"
expect 1 '' nbdinfo --list "nbd://localhost:$port"
expect 0 '' nbdinfo "$(tcp s v1)?tls-certificates=$dir/client"
mkdir "$dir/stranger"
cp "$dir/pki/ca-cert.pem" "$dir/stranger/"
cp "$dir/pki/stranger-cert.pem" "$dir/stranger/client-cert.pem"
cp "$dir/pki/stranger-key.pem" "$dir/stranger/client-key.pem"
expect 1 '' nbdinfo "$(tcp s v1)?tls-certificates=$dir/stranger"
printf 'this is no TLS handshake at all\n' >"/dev/tcp/127.0.0.1/$port" || true
expect 0 '' nbdinfo "$(tcp s v1)?tls-certificates=$dir/client"
nbdcopy "$(tcp s v1)?tls-certificates=$dir/client" "$dir/back"
holds cmp -n $((20 << 20)) "$dir/image" "$dir/back"

say "import, export and backups need certificates too, and say so"
expect 1 'over TLS only: .*QUARRY_NBD_CERT_DIR.* QUARRY_NBD_PSK_FILE' q volume export v1 "$dir/copy"
expect 1 'over TLS only' q volume import "$dir/image" v2
is_gone() { ! q volume show v2; }
until_true 30 is_gone # what it has made is deleted in the background
q snapshot create v1@s1 >/dev/null
expect 1 'over TLS only' q backup create v1@s1 "$dir/repository"
expect 1 "cannot .*'nbds" env QUARRY_NBD_CERT_DIR="$dir/stranger" "$BUILD/quarry" volume export v1 "$dir/copy"
holds test ! -e "$dir/copy"
mkdir "$dir/half"
expect 1 "QUARRY_NBD_CERT_DIR: cannot read '$dir/nowhere/ca-cert.pem': No such file .*needs the authority's ca-cert.pem" \
	env QUARRY_NBD_CERT_DIR="$dir/nowhere" "$BUILD/quarry" volume export v1 "$dir/copy"
cp "$dir/client/ca-cert.pem" "$dir/client/client-cert.pem" "$dir/half"
expect 1 "cannot read '$dir/half/client-key.pem'" env QUARRY_NBD_CERT_DIR="$dir/half" "$BUILD/quarry" volume export v1 "$dir/copy"
export QUARRY_NBD_CERT_DIR=$dir/client
expect 0 'verified' q volume export v1 "$dir/copy"
holds cmp -n $((20 << 20)) "$dir/image" "$dir/copy"
expect 0 'verified' q volume import "$dir/image" v2
expect 0 '' q backup create v1@s1 "$dir/repository"
expect 0 '' q backup restore "$dir/repository" v3
unset QUARRY_NBD_CERT_DIR
expect 1 'over TLS only' q backup restore "$dir/repository" v4 --lazy
QUARRY_NBD_CERT_DIR=$dir/client expect 0 '' q backup restore "$dir/repository" v4 --lazy --wait

say "a shared key"
with_tls "tls = \"require\"; psk_file = \"$dir/keys.psk\";"
expect 0 'TLS' nbdinfo "$(tcp s v1 alice@)?tls-psk-file=$dir/keys.psk"
expect 1 '' nbdinfo "$(tcp s v1 mallory@)?tls-psk-file=$dir/other.psk"
rm "$dir/copy"
expect 1 'cannot read a line NAME:KEY in .*/none' env QUARRY_NBD_PSK_FILE="$dir/none" "$BUILD/quarry" volume export v1 "$dir/copy"
expect 1 "cannot connect to 'nbds" env QUARRY_NBD_PSK_FILE="$dir/other.psk" "$BUILD/quarry" volume export v1 "$dir/copy"
expect 0 'verified' env QUARRY_NBD_PSK_FILE="$dir/keys.psk" "$BUILD/quarry" volume export v1 "$dir/copy"
holds cmp -n $((20 << 20)) "$dir/image" "$dir/copy"
expect 1 '' nbdinfo "$(tcp '' v1)"

say "settings that cannot work are said so at the start"
daemon_stop
for bad in 'tls = "maybe";' 'tls = "require";' "tls = \"on\"; cert_dir = \"$dir/nothing\";" "tls = \"on\"; psk_file = \"$dir/nothing\";"; do
	NBD_CONF="listen = \"127.0.0.1:$port\"; $bad" daemon_configure
	: >"$dir/log"
	daemon_try_start
	is "a start with $bad" "$daemon_said" died
	wait "$daemon_pid" || true
	daemon_pid=
	expect 0 'tls|cert|psk' cat "$dir/log"
done
passed
