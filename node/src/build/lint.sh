# Looks over what was built, where the environment has a linter. It never fails the build: it has the time that is left, at most
# five minutes and without long silence, and what it leaves behind counts for nothing.
artel_lint() {
	command -v "$1" >/dev/null 2>&1 || return 0
	read -r artel_now artel_rest < /proc/uptime
	artel_left=$((${ARTEL_LINT_UNTIL:-0} - ${artel_now%%.*}))
	[ "$artel_left" -le "$ARTEL_LINT_MAX" ] || artel_left=$ARTEL_LINT_MAX
	[ "$artel_left" -ge 5 ] || { echo "artel: no time is left for $1"; return 0; }
	echo "artel: lint by $1"
	(unset LD_PRELOAD FAKETIME; timeout "$artel_left" "$@" 2>&1 | head -c 65536) || :
	printf '\nartel: lint ended\n'
}
