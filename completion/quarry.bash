# completion of quarry for bash, made by `quarry completion bash`

_quarry_nouns() {
	echo 'disk node pool volume snapshot backup cluster status events top usage completion'
}
_quarry_verbs() {
	case "$1" in
	disk) echo 'add list show drain remove scrub check' ;;
	node) echo 'list show drain' ;;
	pool) echo 'create list show set delete' ;;
	volume) echo 'create list show set resize rename move clone delete attach detach import export' ;;
	snapshot) echo 'create list show delete rollback schedule diff' ;;
	backup) echo 'create list verify restore prune' ;;
	cluster) echo 'import-embedded' ;;
	esac
}
_quarry_options() {
	case "$1" in
	'disk add') echo ' --size:text --pool:pool --reserve --force --accept-older ' ;;
	'disk drain') echo ' --cancel --wait ' ;;
	'disk remove') echo ' --force ' ;;
	'disk scrub') echo ' --wait ' ;;
	'node drain') echo ' --cancel --wait ' ;;
	'pool create') echo ' --replicas:text --min-replicas:text --failure-domain:=disk,node,rack,zone ' ;;
	'pool set') echo ' --replicas:text --min-replicas:text --failure-domain:=disk,node,rack,zone ' ;;
	'volume create') echo ' --size:text --pool:pool --replicas:text ' ;;
	'volume set') echo ' --replicas:text --min-replicas:text ' ;;
	'volume resize') echo ' --force ' ;;
	'volume delete') echo ' --snapshots ' ;;
	'volume attach') echo ' --nbd --vhost-user --queues:text --read-only --takeover ' ;;
	'volume detach') echo ' --nbd --vhost-user ' ;;
	'volume import') echo ' --format:=raw,qcow2 --pool:pool --replicas:text --no-verify ' ;;
	'volume export') echo ' --format:=raw,qcow2 --force --no-verify ' ;;
	'snapshot schedule') echo ' --every:text --keep:text --off ' ;;
	'backup create') echo ' --key-file:path --rate-limit:text ' ;;
	'backup list') echo ' --key-file:path ' ;;
	'backup verify') echo ' --key-file:path ' ;;
	'backup restore') echo ' --key-file:path --pool:pool --replicas:text --lazy --wait --zero-damaged ' ;;
	'backup prune') echo ' --keep-last:text --keep-daily:text --keep-weekly:text --key-file:path --dry-run --force ' ;;
	'cluster import-embedded') echo ' --config:path ' ;;
	'events') echo ' --follow --after:text ' ;;
	'top') echo ' --interval:text --once ' ;;
	esac
	echo ' --socket:path --server:text --token-file:path --ca-file:path --json --help --version'
}
_quarry_arguments() {
	case "$1" in
	'disk add') echo 'path' ;;
	'disk show') echo 'disk' ;;
	'disk drain') echo 'disk' ;;
	'disk remove') echo 'disk' ;;
	'disk scrub') echo 'disk' ;;
	'disk check') echo 'path' ;;
	'node show') echo 'node' ;;
	'node drain') echo 'node' ;;
	'pool create') echo 'text' ;;
	'pool show') echo 'pool' ;;
	'pool set') echo 'pool' ;;
	'pool delete') echo 'pool' ;;
	'volume create') echo 'text' ;;
	'volume show') echo 'volume' ;;
	'volume set') echo 'volume' ;;
	'volume resize') echo 'volume text' ;;
	'volume rename') echo 'volume text' ;;
	'volume move') echo 'volume node' ;;
	'volume clone') echo 'snapshot text' ;;
	'volume delete') echo 'volume' ;;
	'volume attach') echo 'export' ;;
	'volume detach') echo 'export' ;;
	'volume import') echo 'path text' ;;
	'volume export') echo 'export path' ;;
	'snapshot create') echo 'snapshot snapshot' ;;
	'snapshot list') echo 'volume' ;;
	'snapshot show') echo 'snapshot' ;;
	'snapshot delete') echo 'snapshot' ;;
	'snapshot rollback') echo 'snapshot' ;;
	'snapshot schedule') echo 'volume' ;;
	'snapshot diff') echo 'snapshot export' ;;
	'backup create') echo 'snapshot path' ;;
	'backup list') echo 'path' ;;
	'backup verify') echo 'path' ;;
	'backup restore') echo 'path text' ;;
	'backup prune') echo 'path' ;;
	'completion') echo '=bash,zsh' ;;
	esac
}
_quarry() {
	local current=${COMP_WORDS[COMP_CWORD]} noun='' verb='' expects='' n=0 i word option arguments
	[[ $current == = ]] && current=''
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ $word == = ]]; then
			continue
		elif [[ $expects ]]; then
			expects=''
		elif [[ $word == -* ]]; then
			for option in $(_quarry_options "$noun${verb:+ $verb}"); do
				[[ $option == "$word":* ]] && expects=${option#*:}
			done
		elif [[ ! $noun ]]; then
			noun=$word
		elif [[ ! $verb && $(_quarry_verbs "$noun") ]]; then
			verb=$word
		else
			n=$((n + 1))
		fi
	done
	if [[ ! $expects ]]; then
		if [[ $current == -* ]]; then
			COMPREPLY=($(for option in $(_quarry_options "$noun${verb:+ $verb}"); do
				echo "${option%%:*}"
			done | compgen -W "$(cat)" -- "$current"))
			return
		elif [[ ! $noun ]]; then
			COMPREPLY=($(compgen -W "$(_quarry_nouns)" -- "$current"))
			return
		elif [[ ! $verb && $(_quarry_verbs "$noun") ]]; then
			COMPREPLY=($(compgen -W "$(_quarry_verbs "$noun")" -- "$current"))
			return
		fi
		arguments=($(_quarry_arguments "$noun${verb:+ $verb}"))
		expects=${arguments[n]}
	fi
	case "$expects" in
	path) compopt -o filenames 2> /dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
	volume | pool | disk | node | snapshot | export)
		COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" names "$expects" 2> /dev/null)" -- "$current")) ;;
	=*) expects=${expects#=}
		COMPREPLY=($(compgen -W "${expects//,/ }" -- "$current")) ;;
	esac
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//@/} # NAME@SNAP is one word
complete -F _quarry quarry
