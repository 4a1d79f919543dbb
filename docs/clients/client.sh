#!/bin/sh
# An example client of verdecmd's admin socket in plain shell, with nc or socat.
#
#	client.sh SOCKET [COUNT]
#
# It lists the users with a session, shows a refusal, and follows events until
# COUNT of them came (without COUNT: for ever). TOOL=socat takes socat for nc.
# For a single command no more is needed than: echo users | nc -N -U SOCKET
set -eu

socket=$1
count=${2:--1}
tab=$(printf '\t')

# One connection for everything: what we write to 3 goes to the master, what it
# answers comes from 4.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkfifo "$dir/to" "$dir/from"
case ${TOOL:-nc} in
nc) nc -U "$socket" <"$dir/to" >"$dir/from" & ;;
socat) socat - "UNIX-CONNECT:$socket" <"$dir/to" >"$dir/from" & ;;
esac
exec 3>"$dir/to" 4<"$dir/from"

# quote TEXT makes one word of a command of any text without control characters.
quote() {
	printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"
}

# ask COMMAND leaves the rows of the reply in the file rows and its last line in
# $code and $end. It fails where the master refuses.
ask() {
	printf '%s\n' "$1" >&3
	: >"$dir/rows"
	while IFS= read -r line <&4; do
		case $line in
		[16]??' '*) ;; # an event, or progress: no part of the reply
		???-*) printf '%s\n' "${line#????}" >>"$dir/rows" ;;
		???' '*)
			code=${line%%' '*}
			end=${line#????}
			case $code in 2??) return 0 ;; *) return 1 ;; esac
			;;
		esac
	done
	echo "the connection was lost" >&2
	exit 1
}

ask hello # makes it a connection that stays
echo "greeting: $end"

ask users
seq=${end##*seq=}
seq=${seq%% *}
while IFS=$tab read -r user uid server desktop image state rest; do
	case $user in '#'*) continue ;; esac # the header
	echo "$user on server $server: $state"
done <"$dir/rows"
: "${uid-} ${desktop-} ${image-} ${rest-}" # columns that are not needed here

if ! ask "user $(quote 'no "such" user')"; then
	echo "refused: $code $end"
fi

# Events after the instant of the list: nothing is missed, nothing comes twice.
ask "events on since=$seq"
echo "waiting for events after $seq"
while [ "$count" -ne 0 ] && IFS= read -r line <&4; do
	case $line in
	650' '*)
		type=${line##* type=}
		echo "event: ${type%% *}"
		count=$((count - 1))
		;;
	651' '*) echo "events were lost: list again" ;;
	esac
done
ask quit
exec 3>&-
wait
