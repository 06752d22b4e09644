#!/bin/bash
# limit: 300
# cluster-etcd.sh: an etcd of three members with TLS and passwords under two nodes with a load: members die one at a time, the
# leader among them; nothing is lost, and nobody loses a lease for longer than an election takes. Then wrong passwords and
# certificates.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
require certtool nbdsh
require_daemon

say "a certificate, three members, a user"
tls=$dir/tls
mkdir "$tls"
certificate() { # NAME TEMPLATE
	certtool --generate-privkey --outfile "$tls/$1-key.pem" 2>/dev/null
	if [ "$1" = ca ]; then
		certtool --generate-self-signed --load-privkey "$tls/ca-key.pem" --template "$2" --outfile "$tls/ca-cert.pem"
	else
		certtool --generate-certificate --load-privkey "$tls/$1-key.pem" --load-ca-certificate "$tls/ca-cert.pem" \
			--load-ca-privkey "$tls/ca-key.pem" --template "$2" --outfile "$tls/$1-cert.pem"
	fi 2>/dev/null
}
printf 'cn = test\nca\ncert_signing_key\nexpiration_days = 2\n' >"$tls/ca.cfg"
printf 'cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\ntls_www_client\nexpiration_days = 2\n' \
	>"$tls/server.cfg"
certificate ca "$tls/ca.cfg"
certificate server "$tls/server.cfg"
certificate other "$tls/server.cfg"
# etcd's gateway takes no certificate with a common name from a client that also has a password
printf 'organization = quarry\ntls_www_client\nexpiration_days = 2\n' >"$tls/client.cfg"
certificate client "$tls/client.cfg"
names=(a b c)
declare -A client=() peer=() member_pid=()
cluster=
for m in "${names[@]}"; do
	client[$m]=https://127.0.0.1:$(port_free)
	peer[$m]=http://127.0.0.1:$(port_free)
	cluster+="${cluster:+,}$m=${peer[$m]}"
done
ask_etcd() { # MEMBER PATH BODY
	curl -fs --max-time "${ETCD_S:-2}" --cacert "$tls/ca-cert.pem" --cert "$tls/client-cert.pem" --key "$tls/client-key.pem" \
		-d "$3" "${client[$1]}$2"
}
member_run() { # MEMBER
	etcd --name "$1" --data-dir "$dir/etcd-$1" --listen-client-urls "${client[$1]}" \
		--advertise-client-urls "${client[$1]}" --listen-peer-urls "${peer[$1]}" \
		--initial-advertise-peer-urls "${peer[$1]}" --initial-cluster "$cluster" --unsafe-no-fsync \
		--cert-file "$tls/server-cert.pem" --key-file "$tls/server-key.pem" --trusted-ca-file "$tls/ca-cert.pem" \
		--client-cert-auth >>"$dir/etcd-$1.log" 2>&1 </dev/null 7>&- 8<&- &
	member_pid[$1]=$!
	others+=("$!")
}
for m in "${names[@]}"; do
	member_run "$m"
done
for m in "${names[@]}"; do
	until_true 30 ask_etcd "$m" /v3/maintenance/status '{}'
done
leader() { # the member that leads; nothing while there is none
	local m status
	for m in "${names[@]}"; do
		status=$(ask_etcd "$m" /v3/maintenance/status '{}') || continue
		[ "$(jq -r '.leader // "0"' <<<"$status")" = "$(jq -r .header.member_id <<<"$status")" ] && echo "$m" && return
	done
	return 1
}
until_true 20 leader
told_etcd() { # PATH BODY: once. A password is hashed for a second of processor time, and others want it, too
	ETCD_S=30 ask_etcd a "$@" >/dev/null || fail "etcd does not take $*"
}
b64() { printf %s "$1" | base64; }
for user in root quarry; do
	told_etcd /v3/auth/user/add "{\"name\": \"$user\", \"password\": \"of $user\"}"
done
told_etcd /v3/auth/role/add '{"name": "root"}'
told_etcd /v3/auth/role/add '{"name": "quarry"}'
told_etcd /v3/auth/role/grant "{\"name\": \"quarry\", \"perm\": {\"permType\": \"READWRITE\", \"key\": \"$(b64 /quarry/)\", \
	\"range_end\": \"$(b64 /quarry0)\"}}"
told_etcd /v3/auth/user/grant '{"user": "root", "role": "root"}'
told_etcd /v3/auth/user/grant '{"user": "quarry", "role": "quarry"}'
told_etcd /v3/auth/enable '{}'

printf 'of quarry\n' >"$dir/password"
configure() { # NODE PASSWORD-FILE CA
	etcd_url=unused
	node_configure "$1"
	sed -i "s|^metadata.*|metadata = { backend = \"etcd\"; endpoints = [ \"${client[a]}\", \"${client[b]}\", \"${client[c]}\" ]; \
ca_file = \"$3\"; cert_file = \"$tls/client-cert.pem\"; key_file = \"$tls/client-key.pem\"; user = \"quarry\"; \
password_file = \"$2\"; };|" "$dir/$1/quarry.conf"
}

say "what etcd refuses"
told() { grep -q "$2" "$dir/$1/log"; }
printf 'wrong\n' >"$dir/wrong"
configure n0 "$dir/wrong" "$tls/ca-cert.pem"
node_try_start n0
is "a node with a wrong password" "$node_said" died
holds told n0 'metadata.endpoints: etcd does not let us in: https://127.0.0.1:'
configure n0 "$dir/none" "$tls/ca-cert.pem"
expect 2 'quarry.conf:[0-9]+: metadata.password_file: .*none: cannot be read' \
	"$quarryd" --config "$dir/n0/quarry.conf" --check-config
configure n0 "$dir/password" "$tls/none.pem"
expect 2 'quarry.conf:[0-9]+: metadata.ca_file: .*none.pem: cannot be read' \
	"$quarryd" --config "$dir/n0/quarry.conf" --check-config
configure n0 "$dir/password" "$tls/other-cert.pem"
node_launch n0
until_true 30 told n0 'no endpoint of etcd answers: https://.*certificate'
node_stop n0

say "two nodes under load, members die one at a time"
LEASE_MS=4000
for n in n1 n2; do
	configure $n "$dir/password" "$tls/ca-cert.pem"
	expect 0 'nothing is wrong' "$quarryd" --config "$dir/$n/quarry.conf" --check-config
	node_start $n
	qn $n disk add "$dir/$n/disks/a.img" --size 768M >/dev/null
	qn $n volume create "v-$n" --size 3G >/dev/null
	qn $n volume attach "v-$n" --nbd >/dev/null
done
load_begin tests/e2e/loadgen --seed $((RANDOM + 1)) --depth 4 --window-mib 12 "$(node_uri n1 v-n1)" "$(node_uri n2 v-n2)"
load_tell load
load_hear loading
done_of() { jsonn "$1" '.counters | .writes + .reads' volume show "v-$1"; }
has_more() { [ "$(done_of "$1")" -gt "$2" ]; }
all_move() {
	local n
	for n in n1 n2; do
		until_true 20 serves $n "v-$n"
		until_true 20 has_more $n "$(done_of $n)"
	done
}
for round in 1 2 3; do
	until_true 20 leader
	victim=$(leader)
	[ $round != 2 ] || victim=$([ "$victim" = a ] && echo b || echo a) # and one that follows
	kill -KILL "${member_pid[$victim]}"
	wait "${member_pid[$victim]}" 2>/dev/null || true
	all_move
	until_true 20 qn n1 volume create "while-$round" --size 1G
	until_true 10 qn n2 volume show "while-$round"
	member_run "$victim"
	until_true 30 ask_etcd "$victim" /v3/maintenance/status '{}'
	all_move
done
for n in n1 n2; do
	until_true 10 qn $n status
done

say "two members are too few: all stands still, and goes on"
for m in a b; do
	kill -STOP "${member_pid[$m]}"
done
failing() { [ "$(jsonn "$1" .state volume show "v-$1")" = failing ]; }
until_true 20 failing n1
until_true 20 failing n2
for m in a b; do
	kill -CONT "${member_pid[$m]}"
done
all_move

node_kill n1
node_kill n2
load_hear lost
node_start n1
node_start n2
all_serve() { serves n1 v-n1 && serves n2 v-n2; }
until_true 10 all_serve
load_tell verify
load_hear verified
say "$heard"
load_end
cluster_passed
